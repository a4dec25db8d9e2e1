#include "worker/runner/task_runner.h"

#include <atomic>

#include "absl/strings/str_cat.h"
#include "base/mapping_guard.h"
#include "base/memory_usage.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/tensor/host_memory.h"
#include "worker/runner/task_memory.h"

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

namespace {

// Buffers beyond the ceiling are refused while a task runs.
class CeilingWhileItRuns {
 public:
  explicit CeilingWhileItRuns(int64_t bytes) { SetHostCeiling(bytes, AnonymousMemoryBytes()); }
  ~CeilingWhileItRuns() { SetHostCeiling(0, 0); }
};

bool RanOutOfMemory(const absl::Status& status) {
  return HasReason(status, reasons::kHostOom) || HasReason(status, reasons::kResourceExhausted);
}

absl::StatusOr<v1::TaskOutput> RunSpec(const TaskContext& context, const v1::TaskSpec& spec) {
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

}  // namespace

namespace {

absl::StatusOr<v1::TaskOutput> RunWithinMemory(const TaskContext& context) {
  const CeilingWhileItRuns ceiling(CeilingOf(context));
  v1::TaskSpec spec = context.lease->spec();
  TaskContext attempt = context;
  attempt.uses_spare = CeilingOf(context) > 0;
  while (true) {
    absl::StatusOr<v1::TaskOutput> output = RunSpec(attempt, spec);
    if (output.ok() || !RanOutOfMemory(output.status())) return output;
    // The forecast was too low, or the device's memory is not all ours. What was taken beside the
    // forecast goes first.
    if (!attempt.uses_spare && !TakeLess(spec)) return output;
    attempt.uses_spare = false;
    context.device->ReleaseScratch();
    TrimHost();
    LWQ_RETURN_IF_ERROR(context.progress(0, "again with less at a time: memory ran out"));
  }
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunTask(const TaskContext& context) {
  CatchLostPages();
  const int64_t lost = NumLostPages();
  absl::StatusOr<v1::TaskOutput> output = RunWithinMemory(context);
  if (NumLostPages() == lost) return output;
  // Zeros were read in the place of what is gone; whatever came of them is of no use.
  return Failure(reasons::kModelChanged,
                 absl::StrCat(NumLostPages() - lost,
                              " pages of files that the task reads could not be read: a file was "
                              "shortened meanwhile; put the model back, or register it again"));
}

}  // namespace lwq
