// Runs tasks in this process.
#pragma once

#include "worker/engine/device/device.h"
#include "worker/runner/calibration_tokens.h"
#include "worker/runner/kept_tokens.h"
#include "worker/task_engine.h"

namespace lwq {

class LocalEngine final : public TaskEngine {
 public:
  // `device` outlives it. `measures`: how fast it is, which takes some tenths of a second.
  LocalEngine(Device* device, bool measures);

  const DeviceInfo& device() const override { return info_; }
  absl::Status Prepare(const v1::TaskSpec& spec) override;
  absl::StatusOr<v1::TaskOutput> Run(const TaskRun& run) override;
  void Rest() override;
  int pid() const override { return 0; }
  absl::Status lost() const override { return lost_; }

 private:
  Device* const device_;
  DeviceInfo info_;
  CalibrationTokens calibration_tokens_;
  KeptTokens evaluation_tokens_;
  absl::Status lost_;
};

}  // namespace lwq
