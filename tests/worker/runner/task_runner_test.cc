#include "worker/runner/task_runner.h"

#include <cstring>

#include "gtest/gtest.h"
#include "worker/engine/device/reference/reference_device.h"
#include "worker/engine/tensor/host_memory.h"

namespace lwq {
namespace {

// Runs a task of a model that is not there: it fails before it does anything.
void RunFailing(v1::TaskSpec::KindCase kind) {
  ReferenceDevice device;
  v1::Lease lease;
  if (kind == v1::TaskSpec::kPreflight) {
    lease.mutable_spec()->mutable_preflight();
  } else {
    lease.mutable_spec()->mutable_verify();
  }
  TaskContext context;
  context.device = &device;
  context.lease = &lease;
  EXPECT_FALSE(RunTask(context).ok());
}

// Whether a large block comes from what was kept: fresh pages are zero.
bool NextBlockIsKept() {
  constexpr size_t kBytes = size_t{64} << 20;
  auto* data = static_cast<char*>(AllocateHost(kBytes));
  const bool kept = data[kBytes / 2] == 7;
  data[kBytes / 2] = 7;
  FreeHost(data);
  return kept;
}

TEST(TaskRunnerTest, MemoryWaitsForTheNextTaskOfTheKind) {
  RunFailing(v1::TaskSpec::kPreflight);
  EXPECT_FALSE(NextBlockIsKept());
  RunFailing(v1::TaskSpec::kPreflight);
  EXPECT_TRUE(NextBlockIsKept());
  RunFailing(v1::TaskSpec::kVerify);
  EXPECT_FALSE(NextBlockIsKept());
  ReleaseTaskMemory();
  EXPECT_FALSE(NextBlockIsKept());
  ReleaseTaskMemory();
}

}  // namespace
}  // namespace lwq
