#include "worker/task_child.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "base/failpoint.h"
#include "base/failure.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "proto/lwq/v1/task_child.pb.h"
#include "worker/child_channel.h"
#include "worker/engine/device/device.h"
#include "worker/failure_proto.h"
#include "worker/local_engine.h"
#include "worker/sandbox.h"

namespace lwq {
namespace {

// What the worker does for this process, and what it wants of it. Thread-safe.
class Worker {
 public:
  explicit Worker(ChildChannel* channel) : channel_(*channel) {}

  // Reads what comes until the worker is gone; then this process ends, whatever it was doing.
  [[noreturn]] void Listen() {
    v1::ToTaskChild message;
    while (channel_.Receive(&message).ok()) {
      MutexLock lock(&mu_);
      if (message.has_answer()) {
        answers_[message.answer().id()] = std::move(*message.mutable_answer());
      } else {
        orders_.push_back(std::move(message));
      }
      changed_.SignalAll();
    }
    ::_exit(0);
  }

  v1::ToTaskChild NextOrder() {
    MutexLock lock(&mu_);
    while (orders_.empty()) changed_.Wait(&mu_);
    v1::ToTaskChild order = std::move(orders_.front());
    orders_.pop_front();
    return order;
  }

  absl::StatusOr<v1::TaskChildAnswer> Ask(v1::TaskChildCall call) {
    v1::FromTaskChild message;
    {
      MutexLock lock(&mu_);
      call.set_id(++last_id_);
    }
    const int64_t id = call.id();
    *message.mutable_call() = std::move(call);
    LWQ_RETURN_IF_ERROR(channel_.Send(message));
    MutexLock lock(&mu_);
    while (answers_.count(id) == 0) changed_.Wait(&mu_);
    v1::TaskChildAnswer answer = std::move(answers_.extract(id).mapped());
    if (answer.has_failure()) return StatusFromFailure(answer.failure());
    return answer;
  }

 private:
  ChildChannel& channel_;
  Mutex mu_;
  CondVar changed_;
  int64_t last_id_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<int64_t, v1::TaskChildAnswer> answers_ ABSL_GUARDED_BY(mu_);
  std::deque<v1::ToTaskChild> orders_ ABSL_GUARDED_BY(mu_);
};

class WorkersBlobs final : public BlobAccess {
 public:
  WorkersBlobs(Worker* worker, std::string scratch)
      : worker_(*worker), scratch_(std::move(scratch)) {}

  absl::StatusOr<std::string> Fetch(const v1::BlobRef& blob) override {
    v1::TaskChildCall call;
    *call.mutable_fetch() = blob;
    LWQ_ASSIGN_OR_RETURN(v1::TaskChildAnswer answer, worker_.Ask(std::move(call)));
    return std::move(*answer.mutable_path());
  }
  absl::StatusOr<v1::BlobRef> Store(const std::string& path, const std::string& sha256) override {
    v1::TaskChildCall call;
    call.mutable_store()->set_path(path);
    call.mutable_store()->set_sha256(sha256);
    LWQ_ASSIGN_OR_RETURN(v1::TaskChildAnswer answer, worker_.Ask(std::move(call)));
    return std::move(*answer.mutable_blob());
  }
  std::string ScratchDirectory() const override { return scratch_; }

 private:
  Worker& worker_;
  const std::string scratch_;
};

v1::FromTaskChild RunOne(const v1::TaskChildTask& task, Worker& worker, LocalEngine& engine) {
  WorkersBlobs blobs(&worker, task.scratch_directory());
  TaskRun run = {.lease = &task.lease(), .blobs = &blobs, .memory_bytes = task.memory_bytes()};
  run.progress = [&](double fraction, const std::string& current) {
    v1::TaskChildCall call;
    call.mutable_progress()->set_fraction(fraction);
    call.mutable_progress()->set_current(current);
    return worker.Ask(std::move(call)).status();
  };
  Failpoint("child.task_begun");
  engine.Prepare(task.lease().spec()).IgnoreError();  // it cannot fail here
  absl::StatusOr<v1::TaskOutput> output = engine.Run(run);
  v1::FromTaskChild message;
  v1::TaskChildResult& result = *message.mutable_result();
  if (output.ok()) {
    *result.mutable_output() = *std::move(output);
  } else {
    *result.mutable_failure() = FailureFromStatus(output.status());
  }
  return message;
}

// A GPU's libraries start processes and connections of their own when they please, so of what they
// may do nothing is taken but the rights.
void GiveUpRights(const Device& device) {
  const absl::Status entered =
      EnterSandbox(/*filters=*/device.name() == "cpu" || device.name() == "reference");
  if (!entered.ok()) {
    spdlog::warn("tasks run with more rights than they need: {}", LogSafe(entered.message()));
  }
}

absl::Status Serve(ChildChannel& channel) {
  v1::ToTaskChild first;
  LWQ_RETURN_IF_ERROR(channel.Receive(&first));
  const v1::TaskChildSetup& setup = first.setup();
  InitLogging("lwq-task", setup.log_format() == "json" ? LogFormat::kJson : LogFormat::kText,
              setup.log_level());
  v1::FromTaskChild greeting;
  v1::TaskChildHello& hello = *greeting.mutable_hello();
  const absl::StatusOr<std::unique_ptr<Device>> device =
      MakeDevice({.device = setup.device(), .num_threads = setup.threads()});
  if (!device.ok()) {
    *hello.mutable_failure() = FailureFromStatus(device.status());
    return channel.Send(greeting);
  }
  LocalEngine engine(device->get(), setup.measure());
  GiveUpRights(**device);
  hello.set_device(engine.device().name);
  hello.set_device_description(engine.device().description);
  hello.set_numerics_class(engine.device().numerics_class);
  hello.set_memory_limit_bytes(engine.device().memory_limit_bytes);
  hello.set_operations_per_second(engine.device().operations_per_second);
  LWQ_RETURN_IF_ERROR(channel.Send(greeting));
  Worker worker(&channel);
  std::thread([&] { worker.Listen(); }).detach();
  while (true) {
    const v1::ToTaskChild order = worker.NextOrder();
    if (order.rest()) engine.Rest();
    if (!order.has_task()) continue;
    LWQ_RETURN_IF_ERROR(channel.Send(RunOne(order.task(), worker, engine)));
    // The worker starts another process.
    if (!engine.lost().ok()) return engine.lost();
  }
}

}  // namespace

int RunTaskChild() {
  // The worker decides when this process ends, and not what it ends by.
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) ::signal(number, SIG_IGN);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_NAME, "lwq-task");
  ::close_range(kTaskChildSocket + 1, ~0U, 0);
  PreferAsOomVictim();
  ChildChannel channel(kTaskChildSocket);
  Serve(channel).IgnoreError();
  ::_exit(0);
}

}  // namespace lwq
