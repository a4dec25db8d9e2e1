#include "tests/simulation/worker.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"

namespace lwq::simulation {
namespace {

constexpr absl::Duration kPollWait = absl::Seconds(20);
constexpr absl::Duration kBeat = absl::Seconds(10);
constexpr absl::Duration kReport = absl::Seconds(30);
constexpr absl::Duration kLongestBackoff = absl::Seconds(10);

bool MayBeTakenLater(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return IsRetryable(status) || reason == "STORE_FULL" || reason == "STORAGE_FULL";
}

bool KnowsOfFailure(const absl::Status& refused) {
  const std::string reason = ReasonOf(refused);
  return reason == "LEASE_LOST" || reason == "OUTPUT_INVALID" || reason == "INCARNATION_SUPERSEDED";
}

// Reads and writes of blobs are calls of the server's own executor for them. What is asked and
// answered is beside the point, so an empty message of either kind does.
using BlobMethod = Network::Method<v1::ReleaseTasksRequest, v1::ReleaseTasksResponse>;

BlobMethod OnBlobs(const char* name, std::function<absl::Status(SimServer&)> body) {
  return [name, body = std::move(body)](SimServer& server, grpc::CallbackServerContext* context,
                                        const v1::ReleaseTasksRequest*, v1::ReleaseTasksResponse*) {
    return RunUnary(server.env(), context, "BlobService", name, *server.env().blob,
                    [&server, body] { return body(server); });
  };
}

absl::Status ReadWhole(BlobStore& blobs, const BlobId& id) {
  LWQ_ASSIGN_OR_RETURN(auto reader, blobs.OpenRead(id));
  return reader->Read(0, id.size_bytes).status();
}

absl::Status WriteWhole(BlobStore& blobs, const std::string& content) {
  const BlobId id = BlobIdOf(content);
  LWQ_ASSIGN_OR_RETURN(const bool there, blobs.Has(id));
  if (there) return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(auto writer, blobs.OpenWrite(id));
  const auto written = static_cast<size_t>(writer->committed_bytes());
  LWQ_RETURN_IF_ERROR(writer->Append(content.substr(written)));
  return writer->Finish();
}

}  // namespace

void Worker::Later(absl::Duration wait, std::function<void()> act) {
  world_.After(wait, [this, act = std::move(act), life = life_] {
    if (life != life_) return;
    if (world_.now() < paused_until_) return Later(paused_until_ - world_.now(), act);
    act();
  });
}

absl::Duration Worker::Backoff() {
  const absl::Duration wait = backoff_;
  backoff_ = std::min(backoff_ * 2, kLongestBackoff);
  return wait;
}

template <typename Request, typename Response>
void Worker::Call(Network::Method<Request, Response> method, const Request& request,
                  absl::Duration timeout, Network::Answer<Response> answer) {
  network_.Call<Request, Response>(
      peer_, machine_, std::move(method), request, timeout,
      [this, answer, life = life_](const absl::Status& status, const Response& response) {
        if (life != life_) return;
        // A server that is away: the next one may be there.
        if (IsRetryable(status)) machine_ = (machine_ + 1) % network_.num_machines();
        if (world_.now() < paused_until_) {
          return Later(paused_until_ - world_.now(), [=] { answer(status, response); });
        }
        answer(status, response);
      });
}

void Worker::Start() {
  if (up_) return;
  ++life_;
  up_ = true;
  stopping_ = false;
  incarnation_ = world_.Hex(16);
  if (world_.Chance(faults_.upgrade)) {
    world_.Count("worker has another version");
    version_ = 3 - version_;
  }
  leases_.clear();
  Answered();
  world_.Note(absl::StrCat("worker ", id_, " starts as ", incarnation_.substr(0, 6)));
  Register();
}

void Worker::Kill() {
  if (!up_) return;
  world_.Note(absl::StrCat("worker ", id_, " dies"));
  ++life_;
  up_ = false;
  paused_until_ = absl::ZeroDuration();
}

void Worker::Terminate() {
  if (!up_) return;
  world_.Note(absl::StrCat("worker ", id_, " is told to stop"));
  stopping_ = true;
}

void Worker::Pause(absl::Duration duration) {
  world_.Note(absl::StrCat("worker ", id_, " stands still"));
  paused_until_ = world_.now() + duration;
}

void Worker::Register() {
  Call<v1::RegisterWorkerRequest, v1::RegisterWorkerResponse>(
      [](SimServer& server, auto* context, auto* request, auto* response) {
        return server.workers().RegisterWorker(context, request, response);
      },
      RegistrationOf(id_, incarnation_, version_), absl::Seconds(10),
      [this](const absl::Status& status, const v1::RegisterWorkerResponse&) {
        if (!status.ok()) return Later(Backoff(), [this] { Register(); });
        Answered();
        Poll();
      });
}

void Worker::Poll() {
  if (stopping_) {
    Kill();
    return;
  }
  v1::LeaseTasksRequest request;
  request.set_worker_id(id_);
  request.set_incarnation(incarnation_);
  request.set_max_tasks(1 + world_.Below(2));
  request.set_wait_seconds(static_cast<int>(absl::ToInt64Seconds(kPollWait)));
  Call<v1::LeaseTasksRequest, v1::LeaseTasksResponse>(
      [](SimServer& server, auto* context, auto* asked, auto* response) {
        return server.workers().LeaseTasks(context, asked, response);
      },
      request, kPollWait + absl::Seconds(10),
      [this, request](const absl::Status& status, const v1::LeaseTasksResponse& response) {
        const std::string reason = ReasonOf(status);
        if (reason == "INCARNATION_SUPERSEDED") return Kill();
        if (reason == "WORKER_UNKNOWN") return Register();
        if (!status.ok()) return Later(Backoff(), [this] { Poll(); });
        Answered();
        if (response.leases_size() > request.max_tasks()) world_.Break("I9", "more than asked for");
        leases_.assign(response.leases().begin(), response.leases().end());
        Next();
      });
}

void Worker::Next() {
  if (leases_.empty()) return Poll();
  auto task = std::make_shared<Task>();
  task->lease = std::move(leases_.front());
  leases_.pop_front();
  task->completion_id = world_.Hex(8);
  world_.Note(absl::StrCat("worker ", id_, " has ", task->lease.task().substr(0, 8), " epoch ",
                           task->lease.epoch()));
  Later(kBeat, [this, task] { Beat(task); });
  Read(task);
}

void Worker::Beat(const std::shared_ptr<Task>& task) {
  if (task->ended) return;
  v1::HeartbeatRequest request;
  request.set_worker_id(id_);
  request.set_incarnation(incarnation_);
  v1::LeaseBeat& beat = *request.add_beats();
  beat.set_task(task->lease.task());
  beat.set_epoch(task->lease.epoch());
  beat.set_progress(++task->progress);
  for (const v1::Lease& waiting : leases_) {
    v1::LeaseBeat& other = *request.add_beats();
    other.set_task(waiting.task());
    other.set_epoch(waiting.epoch());
    other.set_progress(task->progress);
  }
  auto term = std::make_shared<int64_t>(0);  // of who answers
  Call<v1::HeartbeatRequest, v1::HeartbeatResponse>(
      [term](SimServer& server, auto* context, auto* asked, auto* response) {
        *term = server.leadership() == nullptr ? 0 : server.leadership()->term();
        return server.workers().Heartbeat(context, asked, response);
      },
      request, absl::Seconds(5),
      [this, task, term, sent = world_.now()](const absl::Status& status,
                                              const v1::HeartbeatResponse& response) {
        if (ReasonOf(status) == "INCARNATION_SUPERSEDED") task->given_up = true;
        for (const v1::LeaseDirective& directive : response.directives()) {
          if (directive.directive() == v1::LeaseDirective::CONTINUE) {
            promises_.LeaseHeardOf(directive.task(), directive.epoch(), *term, sent);
          } else if (directive.task() == task->lease.task()) {
            task->given_up = true;
          } else {
            std::erase_if(leases_, [&](const v1::Lease& waiting) {
              return waiting.task() == directive.task();
            });
          }
        }
      });
  Later(kBeat, [this, task] { Beat(task); });
}

void Worker::Read(const std::shared_ptr<Task>& task) {
  if (task->given_up || stopping_) return Release(task);
  std::set<BlobId> inputs;
  for (const v1::TaskInput& input : task->lease.inputs()) {
    for (const v1::NamedBlob& blob : input.output().blobs()) {
      inputs.insert({blob.blob().sha256(), blob.blob().size_bytes()});
    }
  }
  if (inputs.empty()) return Compute(task);
  Call<v1::ReleaseTasksRequest, v1::ReleaseTasksResponse>(
      OnBlobs("ReadBlob",
              [inputs](SimServer& server) -> absl::Status {
                for (const BlobId& id : inputs) {
                  LWQ_RETURN_IF_ERROR(ReadWhole(server.blobs(), id));
                }
                return absl::OkStatus();
              }),
      {}, kReport, [this, task](const absl::Status& status, const auto&) {
        if (status.ok()) {
          Answered();
          Compute(task);
        } else if (IsRetryable(status)) {
          Later(Backoff(), [this, task] { Read(task); });
        } else {
          Fail(task, status);
        }
      });
}

void Worker::Compute(const std::shared_ptr<Task>& task) {
  absl::Duration takes = world_.Between(absl::Milliseconds(200), absl::Seconds(8));
  if (world_.Chance(faults_.long_task)) takes *= 8;
  Later(takes, [this, task] {
    if (task->given_up || stopping_) return Release(task);
    if (world_.Chance(faults_.fails)) {
      static constexpr absl::StatusCode kCodes[] = {
          absl::StatusCode::kInternal, absl::StatusCode::kUnavailable,
          absl::StatusCode::kResourceExhausted, absl::StatusCode::kNotFound};
      static constexpr const char* kReasons[] = {"INTERNAL", "BLOB_IO", "HOST_OOM", "MODEL_CHANGED",
                                                 "BLOB_MISSING"};
      const char* reason = kReasons[world_.Below(5)];
      world_.Count(absl::StrCat("task fails: ", reason));
      return Fail(task, Failure(kCodes[world_.Below(4)], reason, "made to fail"));
    }
    task->output = OutputOf(task->lease, task->contents);
    if (world_.Chance(faults_.bad_output)) {
      world_.Count("result of nothing");
      task->output.clear_blobs();
      task->output.clear_result();
    }
    Write(task);
  });
}

void Worker::Write(const std::shared_ptr<Task>& task) {
  if (task->given_up || stopping_) return Release(task);
  if (task->contents.empty()) return Complete(task);
  Call<v1::ReleaseTasksRequest, v1::ReleaseTasksResponse>(
      OnBlobs("WriteBlob",
              [contents = task->contents](SimServer& server) -> absl::Status {
                for (const std::string& content : contents) {
                  LWQ_RETURN_IF_ERROR(WriteWhole(server.blobs(), content));
                }
                return absl::OkStatus();
              }),
      {}, kReport, [this, task](const absl::Status& status, const auto&) {
        if (status.ok()) {
          Answered();
          Complete(task);
        } else if (MayBeTakenLater(status)) {
          Later(Backoff(), [this, task] { Write(task); });
        } else {
          Fail(task, status);
        }
      });
}

void Worker::Complete(const std::shared_ptr<Task>& task) {
  v1::CompleteTaskRequest request;
  request.set_worker_id(id_);
  request.set_incarnation(incarnation_);
  request.set_task(task->lease.task());
  request.set_epoch(task->lease.epoch());
  request.set_completion_id(task->completion_id);
  *request.mutable_output() = task->output;
  Call<v1::CompleteTaskRequest, v1::CompleteTaskResponse>(
      [](SimServer& server, auto* context, auto* asked, auto* response) {
        return server.workers().CompleteTask(context, asked, response);
      },
      request, kReport,
      [this, task](const absl::Status& status, const auto&) {
        if (status.ok()) {
          Answered();
          promises_.CompletionAcknowledged(task->lease.task(), task->lease.epoch(),
                                           task->completion_id);
          return End(task);
        }
        if (stopping_) return End(task);
        if (MayBeTakenLater(status)) return Later(Backoff(), [this, task] { Complete(task); });
        world_.Note(absl::StrCat("worker ", id_, " is refused ", task->lease.task().substr(0, 8),
                                 ": ", ReasonOf(status)));
        if (ReasonOf(status) == "LEASE_LOST") world_.Count("completion comes too late");
        if (KnowsOfFailure(status)) return End(task);
        Fail(task, status);
      });
}

void Worker::Fail(const std::shared_ptr<Task>& task, const absl::Status& why) {
  v1::FailTaskRequest request;
  request.set_worker_id(id_);
  request.set_incarnation(incarnation_);
  request.set_task(task->lease.task());
  request.set_epoch(task->lease.epoch());
  v1::Failure& failure = *request.mutable_failure();
  failure.set_reason(ReasonOf(why));
  failure.set_message(std::string(why.message()));
  failure.set_code(static_cast<int>(why.code()));
  failure.set_retryable(IsRetryable(why));
  Call<v1::FailTaskRequest, v1::FailTaskResponse>(
      [](SimServer& server, auto* context, auto* asked, auto* response) {
        return server.workers().FailTask(context, asked, response);
      },
      request, kReport,
      [this, task, why](const absl::Status& status, const auto&) {
        if (!status.ok() && MayBeTakenLater(status) && !stopping_) {
          return Later(Backoff(), [this, task, why] { Fail(task, why); });
        }
        Answered();
        End(task);
      });
}

void Worker::Release(const std::shared_ptr<Task>& task) {
  v1::ReleaseTasksRequest request;
  request.set_worker_id(id_);
  request.set_incarnation(incarnation_);
  v1::HeldLease& held = *request.add_leases();
  held.set_task(task->lease.task());
  held.set_epoch(task->lease.epoch());
  // Unheard, the lease ends by itself.
  Call<v1::ReleaseTasksRequest, v1::ReleaseTasksResponse>(
      [](SimServer& server, auto* context, auto* asked, auto* response) {
        return server.workers().ReleaseTasks(context, asked, response);
      },
      request, absl::Seconds(5), [this, task](const absl::Status&, const auto&) { End(task); });
}

void Worker::End(const std::shared_ptr<Task>& task) {
  task->ended = true;
  Next();
}

}  // namespace lwq::simulation
