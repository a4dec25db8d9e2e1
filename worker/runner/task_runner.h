// Runs one leased task on the worker's device: the only bridge between stored records (proto) and
// the numeric engine. One file a task kind.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/lwq/v1/task.pb.h"
#include "proto/lwq/v1/worker_service.pb.h"
#include "worker/engine/device/device.h"
#include "worker/runner/blob_access.h"
#include "worker/runner/calibration_tokens.h"
#include "worker/runner/kept_tokens.h"

namespace lwq {

// What a task's code is given. Lives as long as the task.
struct TaskContext {
  Device* device = nullptr;
  BlobAccess* blobs = nullptr;
  int64_t memory_bytes = 0;                         // ceiling of the worker; 0: none
  CalibrationTokens* calibration_tokens = nullptr;  // of the worker; null: none are kept
  KeptTokens* evaluation_tokens = nullptr;          // likewise
  const v1::Lease* lease = nullptr;
  // Whether what a ceiling leaves beside the forecast may be used: not after memory ran out.
  bool uses_spare = true;
  // Tells how far the task is; an error (CANCELLED, ABORTED "LEASE_LOST") must be returned at once.
  std::function<absl::Status(double fraction, const std::string& current)> progress;
};

// Runs context.lease->spec(), again with less at a time where memory does not do. Errors are the
// task's failure; reasons as in base/failure.h.
absl::StatusOr<v1::TaskOutput> RunTask(const TaskContext& context);
// To be called before, and before anybody looks how much memory the task takes: what the last one
// freed stays with the process where this one is of the same kind.
void PrepareMemory(Device* device, const v1::TaskSpec& spec);
// Gives that memory back: for a worker that has nothing to do.
void ReleaseTaskMemory();

// One a kind, in <kind>_task.cc.
absl::StatusOr<v1::TaskOutput> RunIngest(const TaskContext& context, const v1::IngestTask& task);
absl::StatusOr<v1::TaskOutput> RunPreflight(const TaskContext& context,
                                            const v1::PreflightTask& task);
absl::StatusOr<v1::TaskOutput> RunCalibrate(const TaskContext& context,
                                            const v1::CalibrateTask& task);
absl::StatusOr<v1::TaskOutput> RunScore(const TaskContext& context, const v1::ScoreTask& task);
absl::StatusOr<v1::TaskOutput> RunQuantize(const TaskContext& context,
                                           const v1::QuantizeTask& task);
absl::StatusOr<v1::TaskOutput> RunAssemble(const TaskContext& context,
                                           const v1::AssembleTask& task);
absl::StatusOr<v1::TaskOutput> RunVerify(const TaskContext& context, const v1::VerifyTask& task);
absl::StatusOr<v1::TaskOutput> RunEvaluate(const TaskContext& context,
                                           const v1::EvaluateTask& task);
absl::StatusOr<v1::TaskOutput> RunTrial(const TaskContext& context, const v1::TrialTask& task);

}  // namespace lwq
