#include "worker/runner/task_runner.h"

#include <atomic>

#include "absl/strings/str_cat.h"
#include "worker/engine/tensor/host_memory.h"

namespace lwq {

namespace {

// What the memory that is kept has been for.
std::atomic<v1::TaskSpec::KindCase> last_kind = v1::TaskSpec::KIND_NOT_SET;

}  // namespace

void ReleaseTaskMemory() { TrimHost(); }

void PrepareMemory(Device* device, const v1::TaskSpec& spec) {
  KeepFreedMemory();
  if (last_kind.exchange(spec.kind_case()) == spec.kind_case()) return;
  device->ReleaseScratch();
  TrimHost();
}

absl::StatusOr<v1::TaskOutput> RunTask(const TaskContext& context) {
  const v1::TaskSpec& spec = context.lease->spec();
  switch (spec.kind_case()) {
    case v1::TaskSpec::kIngest:
      return RunIngest(context, spec.ingest());
    case v1::TaskSpec::kPreflight:
      return RunPreflight(context, spec.preflight());
    case v1::TaskSpec::kCalibrate:
      return RunCalibrate(context, spec.calibrate());
    case v1::TaskSpec::kScore:
      return RunScore(context, spec.score());
    case v1::TaskSpec::kQuantize:
      return RunQuantize(context, spec.quantize());
    case v1::TaskSpec::kAssemble:
      return RunAssemble(context, spec.assemble());
    case v1::TaskSpec::kVerify:
      return RunVerify(context, spec.verify());
    case v1::TaskSpec::kEvaluate:
      return RunEvaluate(context, spec.evaluate());
    case v1::TaskSpec::kTrial:
      return RunTrial(context, spec.trial());
    case v1::TaskSpec::KIND_NOT_SET:
      break;
  }
  return absl::UnimplementedError(absl::StrCat("task ", context.lease->task(),
                                               " is of a kind this worker does not know: it is "
                                               "older than the server"));
}

}  // namespace lwq
