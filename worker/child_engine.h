// Runs tasks in a process of their own (task_child.h), one after the other, so that what it keeps
// from task to task stays with it. One that ends is a task's failure, and another one is started
// for the next task.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proto/lwq/v1/task_child.pb.h"
#include "worker/child_channel.h"
#include "worker/engine/device/device.h"
#include "worker/task_engine.h"

namespace lwq {

struct ChildOptions {
  std::string program = "/proc/self/exe";  // of which kTaskChildFlag makes a task child
  DeviceOptions device;
  std::string log_format = "text";
  std::string log_level = "info";
};

// INVALID_ARGUMENT "PATH_NOT_ALLOWED" unless the file, by its real name, is under `scratch`: what
// the worker sends to the server is not for the task's process to choose among all that the worker
// can read.
absl::Status CheckInScratch(const std::string& path, const std::string& scratch);

class ChildEngine final : public TaskEngine {
 public:
  // Starts the first process. Errors are those of MakeDevice; INTERNAL "CHILD_DIED" where it ends
  // before it is ready. The process ends with the thread that calls this or Prepare.
  static absl::StatusOr<std::unique_ptr<ChildEngine>> Start(ChildOptions options);
  ~ChildEngine() override;

  const DeviceInfo& device() const override { return info_; }
  absl::Status Prepare(const v1::TaskSpec& spec) override;
  absl::StatusOr<v1::TaskOutput> Run(const TaskRun& run) override;
  void Rest() override;
  int pid() const override { return pid_; }
  absl::Status lost() const override { return absl::OkStatus(); }

 private:
  explicit ChildEngine(ChildOptions options) : options_(std::move(options)) {}
  absl::Status StartChild();
  absl::Status Spawn();
  // Ends it, if it has not ended by itself, and says how it did.
  int EndChild();
  // Until the result, or an error of the channel.
  absl::StatusOr<v1::TaskChildResult> Serve(const TaskRun& run);

  const ChildOptions options_;
  DeviceInfo info_;
  bool is_first_ = true;
  int64_t child_limit_bytes_ = 0;  // of its device's memory; 0: none
  int pid_ = 0;                    // 0: none
  std::unique_ptr<ChildChannel> channel_;
};

}  // namespace lwq
