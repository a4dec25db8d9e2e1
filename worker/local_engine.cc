#include "worker/local_engine.h"

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/reasons.h"
#include "worker/engine/device/device_speed.h"
#include "worker/runner/task_runner.h"

namespace lwq {

LocalEngine::LocalEngine(Device* device, bool measures) : device_(device) {
  info_.name = std::string(device->name());
  info_.description = device->Description();
  info_.numerics_class = device->NumericsClass();
  info_.memory_limit_bytes = device->memory_limit_bytes();
  if (!measures) return;
  // Known to be rough, and no reason not to work where it cannot be told.
  const absl::StatusOr<double> speed = MeasureOperationsPerSecond(device);
  if (speed.ok()) info_.operations_per_second = *speed;
  if (!speed.ok()) spdlog::warn("measuring the device: {}", LogSafe(speed.status().ToString()));
}

absl::Status LocalEngine::Prepare(const v1::TaskSpec& spec) {
  PrepareMemory(device_, spec);
  return absl::OkStatus();
}

absl::StatusOr<v1::TaskOutput> LocalEngine::Run(const TaskRun& run) {
  TaskContext context;
  context.device = device_;
  context.blobs = run.blobs;
  context.memory_bytes = run.memory_bytes;
  context.calibration_tokens = &calibration_tokens_;
  context.evaluation_tokens = &evaluation_tokens_;
  context.lease = run.lease;
  context.progress = run.progress;
  absl::StatusOr<v1::TaskOutput> result = RunTask(context);
  if (result.ok() || !device_->Lost()) return result;
  lost_ =
      Failure(reasons::kDeviceLost,
              absl::StrCat(device_->name(), " has a fault that only a new process gets rid of: ",
                           result.status().message()));
  return lost_;
}

void LocalEngine::Rest() { ReleaseTaskMemory(); }

}  // namespace lwq
