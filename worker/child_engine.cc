#include "worker/child_engine.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <deque>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/child_end.h"
#include "worker/failure_proto.h"
#include "worker/task_child.h"

extern char** environ;

namespace lwq {
namespace {

// A task may have thousands of blobs, and a thread that has ended holds its stack until it is
// joined.
constexpr size_t kMostMoving = 16;

v1::TaskChildAnswer AnswerTo(const v1::TaskChildCall& call, const TaskRun& run) {
  v1::TaskChildAnswer answer;
  answer.set_id(call.id());
  absl::Status status = absl::InvalidArgumentError("a call of no kind");
  if (call.has_progress()) {
    status = run.progress(call.progress().fraction(), call.progress().current());
  } else if (call.has_fetch()) {
    absl::StatusOr<std::string> path = run.blobs->Fetch(call.fetch());
    status = path.status();
    if (path.ok()) answer.set_path(*std::move(path));
  } else if (call.has_store()) {
    status = CheckInScratch(call.store().path(), run.blobs->ScratchDirectory());
    if (status.ok()) {
      absl::StatusOr<v1::BlobRef> blob =
          run.blobs->Store(call.store().path(), call.store().sha256());
      status = blob.status();
      if (blob.ok()) *answer.mutable_blob() = *std::move(blob);
    }
  }
  if (!status.ok()) *answer.mutable_failure() = FailureFromStatus(status);
  return answer;
}

}  // namespace

absl::Status CheckInScratch(const std::string& path, const std::string& scratch) {
  char real_path[PATH_MAX], real_scratch[PATH_MAX];
  if (::realpath(path.c_str(), real_path) != nullptr &&
      ::realpath(scratch.c_str(), real_scratch) != nullptr &&
      absl::StartsWith(real_path, absl::StrCat(real_scratch, "/"))) {
    return absl::OkStatus();
  }
  return Failure(reasons::kPathNotAllowed, "a task stores files of its scratch directory only");
}

absl::StatusOr<std::unique_ptr<ChildEngine>> ChildEngine::Start(ChildOptions options) {
  std::unique_ptr<ChildEngine> engine(new ChildEngine(std::move(options)));
  LWQ_RETURN_IF_ERROR(engine->StartChild());
  return engine;
}

ChildEngine::~ChildEngine() { EndChild(); }

absl::Status ChildEngine::Spawn() {
  int sockets[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    return absl::ErrnoToStatus(errno, "a socket for the process that runs tasks");
  }
  channel_ = std::make_unique<ChildChannel>(sockets[0]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, sockets[1], kTaskChildSocket);
  std::string name = "lwq-worker", flag = kTaskChildFlag;
  char* const arguments[] = {name.data(), flag.data(), nullptr};
  pid_t pid = 0;
  const int error =
      ::posix_spawn(&pid, options_.program.c_str(), &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(sockets[1]);
  if (error != 0) return absl::ErrnoToStatus(error, "starting the process that runs tasks");
  pid_ = pid;
  return absl::OkStatus();
}

absl::Status ChildEngine::StartChild() {
  LWQ_RETURN_IF_ERROR(Spawn());
  v1::ToTaskChild setup;
  setup.mutable_setup()->set_device(options_.device.device);
  setup.mutable_setup()->set_threads(options_.device.num_threads);
  setup.mutable_setup()->set_log_format(options_.log_format);
  setup.mutable_setup()->set_log_level(options_.log_level);
  setup.mutable_setup()->set_measure(is_first_);
  v1::FromTaskChild greeting;
  absl::Status ready = channel_->Send(setup);
  if (ready.ok()) ready = channel_->Receive(&greeting);
  if (!ready.ok()) {
    return Failure(reasons::kChildDied, absl::StrCat("before it was ready, ",
                                                     FailureOfEnd(EndChild(), -1, -1).message()));
  }
  const v1::TaskChildHello& hello = greeting.hello();
  if (hello.has_failure()) {
    EndChild();
    return StatusFromFailure(hello.failure());
  }
  // One that is started anew may find less than the first, which the server knows.
  child_limit_bytes_ = hello.memory_limit_bytes();
  if (!std::exchange(is_first_, false)) return absl::OkStatus();
  info_.name = hello.device();
  info_.description = hello.device_description();
  info_.numerics_class = hello.numerics_class();
  info_.memory_limit_bytes = hello.memory_limit_bytes();
  info_.operations_per_second = hello.operations_per_second();
  return absl::OkStatus();
}

int ChildEngine::EndChild() {
  if (pid_ == 0) return 0;
  // One that closed its end is about to end by itself, and how it does is to be known.
  channel_.reset();
  int status = 0;
  for (int tries = 0; ::waitpid(pid_, &status, WNOHANG) == 0; ++tries) {
    if (tries == 200) ::kill(pid_, SIGKILL);
    ::usleep(5'000);
  }
  pid_ = 0;
  return status;
}

absl::Status ChildEngine::Prepare(const v1::TaskSpec&) {
  int status = 0;
  if (pid_ != 0 && ::waitpid(pid_, &status, WNOHANG) == pid_) {
    pid_ = 0;
    spdlog::warn("between tasks {}", LogSafe(FailureOfEnd(status, -1, -1).message()));
  }
  return pid_ == 0 ? StartChild() : absl::OkStatus();
}

absl::StatusOr<v1::TaskChildResult> ChildEngine::Serve(const TaskRun& run) {
  // Blobs, each in its own time, the oldest first.
  std::deque<std::thread> moving;
  const auto join_first = [&moving] {
    moving.front().join();
    moving.pop_front();
  };
  v1::FromTaskChild message;
  absl::Status status = channel_->Receive(&message);
  for (; status.ok() && message.has_call(); status = channel_->Receive(&message)) {
    const auto answer = [this, &run, call = message.call()] {
      v1::ToTaskChild reply;
      *reply.mutable_answer() = AnswerTo(call, run);
      channel_->Send(reply).IgnoreError();  // that it is gone is noticed by Receive
    };
    if (message.call().has_progress()) {
      answer();
    } else {
      if (moving.size() == kMostMoving) join_first();
      moving.emplace_back(answer);
    }
  }
  while (!moving.empty()) join_first();
  LWQ_RETURN_IF_ERROR(status);
  return std::move(*message.mutable_result());
}

absl::StatusOr<v1::TaskOutput> ChildEngine::Run(const TaskRun& run) {
  const int64_t oom_kills = NumOomKills();
  v1::ToTaskChild order;
  v1::TaskChildTask& task = *order.mutable_task();
  *task.mutable_lease() = *run.lease;
  const bool is_less =
      child_limit_bytes_ > 0 && (run.memory_bytes == 0 || child_limit_bytes_ < run.memory_bytes);
  task.set_memory_bytes(is_less ? child_limit_bytes_ : run.memory_bytes);
  task.set_scratch_directory(run.blobs->ScratchDirectory());
  channel_->Send(order).IgnoreError();  // that it is gone is noticed by Receive
  const absl::StatusOr<v1::TaskChildResult> result = Serve(run);
  if (!result.ok()) return FailureOfEnd(EndChild(), oom_kills, NumOomKills());
  if (!result->has_failure()) return result->output();
  absl::Status status = StatusFromFailure(result->failure());
  if (HasReason(status, reasons::kDeviceLost)) EndChild();
  return status;
}

void ChildEngine::Rest() {
  if (pid_ == 0) return;
  v1::ToTaskChild order;
  order.set_rest(true);
  channel_->Send(order).IgnoreError();  // one that is gone is noticed by Prepare
}

}  // namespace lwq
