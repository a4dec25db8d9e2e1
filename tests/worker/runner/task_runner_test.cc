#include "worker/runner/task_runner.h"

#include <cstring>

#include "gtest/gtest.h"
#include "worker/engine/device/reference/reference_device.h"
#include "worker/engine/tensor/host_memory.h"

namespace lwq {
namespace {

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
  ReferenceDevice device;
  v1::TaskSpec preflight, verify;
  preflight.mutable_preflight();
  verify.mutable_verify();
  PrepareMemory(&device, preflight);
  EXPECT_FALSE(NextBlockIsKept());
  PrepareMemory(&device, preflight);
  EXPECT_TRUE(NextBlockIsKept());
  PrepareMemory(&device, verify);
  EXPECT_FALSE(NextBlockIsKept());
  ReleaseTaskMemory();
  EXPECT_FALSE(NextBlockIsKept());
  ReleaseTaskMemory();
}

}  // namespace
}  // namespace lwq
