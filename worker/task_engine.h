// Where a worker's tasks run: in the worker's own process (local_engine.h) or in one of their own
// (child_engine.h), which a task that crashes takes with it instead of the worker.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/lwq/v1/task.pb.h"
#include "proto/lwq/v1/worker_service.pb.h"
#include "worker/runner/blob_access.h"

namespace lwq {

struct DeviceInfo {
  std::string name;  // "cpu"
  std::string description;
  std::string numerics_class;
  int64_t memory_limit_bytes = 0;    // of the device itself; 0: none
  double operations_per_second = 0;  // 0: not measured
};

// All outlive the run.
struct TaskRun {
  const v1::Lease* lease = nullptr;
  BlobAccess* blobs = nullptr;
  int64_t memory_bytes = 0;  // ceiling of the worker; 0: none
  // As TaskContext::progress. Called by one thread at a time.
  std::function<absl::Status(double fraction, const std::string& current)> progress;
};

// For one thread.
class TaskEngine {
 public:
  virtual ~TaskEngine() = default;
  virtual const DeviceInfo& device() const = 0;
  // Before each Run, and before anybody looks how much memory the task takes. An error: no task can
  // be run here any more.
  virtual absl::Status Prepare(const v1::TaskSpec& spec) = 0;
  // Errors are the task's failure; "TASK_CRASHED" and "HOST_OOM" where the process ended.
  virtual absl::StatusOr<v1::TaskOutput> Run(const TaskRun& run) = 0;
  // Nothing is to be done for now: memory that was kept for the next task is given back.
  virtual void Rest() = 0;
  // The process that runs tasks, from Prepare until the next; 0: this one.
  virtual int pid() const = 0;
  // "DEVICE_LOST" after a task that failed with a fault that this process cannot get rid of.
  virtual absl::Status lost() const = 0;
};

}  // namespace lwq
