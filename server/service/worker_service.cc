#include "server/service/worker_service.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/rpc/channel.h"
#include "base/status_macros.h"
#include "server/dispatch/make_lease.h"
#include "server/service/validation.h"

namespace lwq {
namespace {

constexpr char kServiceName[] = "WorkerService";
constexpr int kMaxWaitSeconds = 20;
constexpr int kProtocol = 2;
// It is kept for as long as the worker is known. Those of today have some 20 KiB.
constexpr size_t kMostRegistrationBytes = 256 << 10;
static_assert(kMaxLeaseBytes < kMaxMessageBytes);

google::protobuf::Duration ToDuration(int64_t us) {
  google::protobuf::Duration duration;
  duration.set_seconds(us / 1'000'000);
  duration.set_nanos(static_cast<int32_t>(us % 1'000'000) * 1000);
  return duration;
}

void CountRejected(ServerMetrics& metrics, const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (reason == reasons::kLeaseLost.name) metrics.LeaseRejected("lease_lost");
  if (reason == reasons::kIncarnationSuperseded.name) metrics.LeaseRejected("superseded");
  if (reason == reasons::kWorkerUnknown.name) metrics.LeaseRejected("unknown");
}

// Who has a token of one worker, or of some, is none of the others.
absl::Status CheckWorkerId(const Caller& caller, const std::string& worker_id) {
  if (MayBeWorker(caller.worker, worker_id)) return absl::OkStatus();
  return Failure(reasons::kRoleRequired, absl::StrCat("the token is of worker ", caller.worker,
                                                      ", not of ", worker_id.substr(0, 64)));
}

// A long poll: tries, and tries again when a task may be ready, until its time is over.
class LeaseCall final : public grpc::ServerUnaryReactor, public LongCall {
 public:
  LeaseCall(ServiceEnv& env, grpc::CallbackServerContext* context,
            const v1::LeaseTasksRequest& request, v1::LeaseTasksResponse* response)
      : env_(env),
        request_(request),
        response_(response),
        deadline_(env.scheduler->clock().Steady() +
                  absl::Seconds(std::clamp(request.wait_seconds(), 0, kMaxWaitSeconds))),
        record_(env, context, kServiceName, "LeaseTasks", this) {}

  void Begin() {
    absl::Status admitted = record_.Admit();
    if (admitted.ok()) admitted = CheckWorkerId(record_.caller(), request_.worker_id());
    if (!admitted.ok()) return End(admitted);
    if (env_.scheduler->draining) return End(DrainingError());
    polls_ = true;
    env_.scheduler->CountPoll(request_.worker_id(), 1);
    waiter_ = env_.scheduler->lease_waiters().Add([this](int64_t others) { return Wake(others); });
    tick_hint_ = env_.scheduler->hints().Add(kTickTopic, [this] { Tick(); });
    Wake(0);
  }
  void Drain() override { End(DrainingError()); }
  void OnCancel() override { End(absl::CancelledError("the worker has gone")); }
  void OnDone() override {
    if (polls_) env_.scheduler->CountPoll(request_.worker_id(), -1);
    env_.scheduler->lease_waiters().Remove(waiter_);
    env_.scheduler->hints().Remove(tick_hint_);
    bool idle = false;
    {
      MutexLock lock(&mu_);
      done_ = true;
      idle = !trying_;
    }
    if (idle) delete this;
  }

 private:
  // Looks for a task, soon. False when it will not; `others` see LeaseWaiters.
  bool Wake(int64_t others) {
    {
      MutexLock lock(&mu_);
      if (done_ || record_.finished()) return false;
      again_ = true;
      others_ = std::max(others_, others);
      if (trying_) return true;
      trying_ = true;
    }
    if (env_.tasks->PostAlways([this] { Try(); })) return true;
    MutexLock lock(&mu_);
    trying_ = false;
    return false;
  }

  void Tick() {
    if (TimeIsOver()) Wake(0);
  }
  bool TimeIsOver() const { return env_.scheduler->clock().Steady() >= deadline_; }

  void Try() {
    bool delete_now = false;
    while (true) {
      int64_t others = 0;
      {
        MutexLock lock(&mu_);
        if (done_ || !again_) {
          trying_ = false;
          delete_now = done_;
          break;
        }
        again_ = false;
        others = std::exchange(others_, 0);
      }
      // Nothing here for this worker: perhaps for another.
      if (!TryOnce() && env_.scheduler->AnyReady()) {
        env_.scheduler->lease_waiters().PassOn(others);
      }
    }
    if (delete_now) delete this;
  }

  // True when it took a task.
  bool TryOnce() {
    // A lease for a worker that hung up would be lost for a whole TTL.
    if (record_.finished()) return false;
    if (absl::Status stays = record_.MayStay(); !stays.ok()) {
      End(stays);
      return false;
    }
    std::vector<v1::Lease> leases;
    absl::Status status = env_.scheduler->RunTogether([&](Draft& draft) -> absl::Status {
      LWQ_ASSIGN_OR_RETURN(leases, lwq::LeaseTasks(draft, request_));
      return absl::OkStatus();
    });
    if (!status.ok()) {
      CountRejected(env_.scheduler->metrics(), status);
      End(status);
      return false;
    }
    env_.scheduler->SawWorker(request_.worker_id());
    const bool took = !leases.empty();
    if (took) Failpoint("lease.before_answer");
    if (!took && !TimeIsOver()) return false;
    if (!record_.TakeFinish()) {
      GiveBack(leases);
      return took;
    }
    // The context is there until the call is finished, and nobody else finishes it from here on.
    if (record_.context()->IsCancelled()) {
      GiveBack(leases);
      Finish(record_.Close(absl::CancelledError("the worker has gone")));
      return took;
    }
    for (v1::Lease& lease : leases) *response_->add_leases() = std::move(lease);
    Finish(record_.Close(absl::OkStatus()));
    return took;
  }

  // The call ended while the leases were made: nobody has heard of them.
  void GiveBack(const std::vector<v1::Lease>& leases) {
    if (leases.empty()) return;
    v1::ReleaseTasksRequest release;
    release.set_worker_id(request_.worker_id());
    release.set_incarnation(request_.incarnation());
    for (const v1::Lease& lease : leases) {
      v1::HeldLease& held = *release.add_leases();
      held.set_task(lease.task());
      held.set_epoch(lease.epoch());
    }
    env_.scheduler->Run([&](Draft& draft) { return lwq::ReleaseTasks(draft, release); })
        .IgnoreError();
  }

  void End(const absl::Status& status) {
    if (record_.TakeFinish()) Finish(record_.Close(status));
  }

  ServiceEnv& env_;
  const v1::LeaseTasksRequest request_;
  v1::LeaseTasksResponse* const response_;
  const absl::Duration deadline_;  // by the steady clock
  CallRecord record_;
  bool polls_ = false;
  int64_t waiter_ = 0;
  int64_t tick_hint_ = 0;
  Mutex mu_;
  bool trying_ ABSL_GUARDED_BY(mu_) = false;
  bool again_ ABSL_GUARDED_BY(mu_) = false;
  int64_t others_ ABSL_GUARDED_BY(mu_) = 0;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

absl::Status WorkerServiceImpl::DoRegister(const v1::RegisterWorkerRequest& request,
                                           v1::RegisterWorkerResponse& response) {
  FieldErrors errors;
  if (!IsResourceId(request.worker_id())) {
    errors.Add("worker_id", "is not a lower-case id of at most 63 letters, digits and dashes",
               "NAME_INVALID");
  }
  if (request.incarnation().size() < 16 || request.incarnation().size() > 64) {
    errors.Add("incarnation", "has to be 16 to 64 characters");
  }
  if (request.ByteSizeLong() > kMostRegistrationBytes) {
    errors.Add("", absl::StrCat("the registration has ", request.ByteSizeLong(), " bytes, at most ",
                                kMostRegistrationBytes));
  }
  if (!std::isfinite(request.operations_per_second()) || request.operations_per_second() < 0) {
    errors.Add("operations_per_second", "is no speed");
  }
  if (request.memory_bytes() < 0) errors.Add("memory_bytes", "is negative");
  LWQ_RETURN_IF_ERROR(errors.status());
  if (request.protocol() < kProtocol) {
    return Failure(reasons::kWorkerTooOld,
                   absl::StrCat("worker protocol ", request.protocol(),
                                ", this server needs at least ", kProtocol));
  }
  LWQ_RETURN_IF_ERROR(
      env_.scheduler->Run([&](Draft& draft) { return lwq::RegisterWorker(draft, request); }));
  Failpoint("register.before_answer");
  env_.scheduler->SawWorker(request.worker_id());
  const DispatchOptions& options = env_.scheduler->options();
  *response.mutable_heartbeat_interval() = ToDuration(options.heartbeat_us);
  *response.mutable_lease_ttl() = ToDuration(options.lease_ttl_us);
  spdlog::info("worker {} registered ({})", request.worker_id(),
               LogSafe(request.device_description()));
  return absl::OkStatus();
}

absl::Status WorkerServiceImpl::DoComplete(const v1::CompleteTaskRequest& request) {
  Scheduler& scheduler = *env_.scheduler;
  for (const v1::NamedBlob& blob : request.output().blobs()) {
    LWQ_ASSIGN_OR_RETURN(const bool there,
                         scheduler.blobs().Has({blob.blob().sha256(), blob.blob().size_bytes()}));
    if (!there) {
      return Failure(reasons::kOutputMissing,
                     absl::StrCat("output ", blob.name(), " names blob ", blob.blob().sha256(),
                                  ", which is not there"));
    }
  }
  Failpoint("complete.before_commit");
  absl::Status status =
      scheduler.RunTogether([&](Draft& draft) { return lwq::CompleteTask(draft, request); });
  Failpoint("complete.before_answer");
  if (status.ok()) scheduler.SawWorker(request.worker_id());
  if (ReasonOf(status) == reasons::kOutputInvalid.name) {
    v1::FailTaskRequest failed;
    failed.set_worker_id(request.worker_id());
    failed.set_incarnation(request.incarnation());
    failed.set_task(request.task());
    failed.set_epoch(request.epoch());
    *failed.mutable_failure() = ToFailure(status);
    LWQ_RETURN_IF_ERROR(scheduler.Run([&](Draft& draft) { return lwq::FailTask(draft, failed); }));
    return status;
  }
  if (ReasonOf(status) != reasons::kLeaseLost.name || request.completion_id().empty()) {
    return status;
  }
  // The task may have been counted, and forgotten with its last job, before this was sent again.
  absl::StatusOr<Record> row = scheduler.store().Get(Table::kCache, request.task());
  v1::CacheRecord entry;
  if (row.ok() && entry.ParseFromString(row->value) &&
      entry.completion_id() == request.completion_id()) {
    return absl::OkStatus();
  }
  return status;
}

grpc::ServerUnaryReactor* WorkerServiceImpl::RegisterWorker(
    grpc::CallbackServerContext* context, const v1::RegisterWorkerRequest* request,
    v1::RegisterWorkerResponse* response) {
  return RunUnaryAs(env_, context, kServiceName, "RegisterWorker", *env_.write,
                    [=, this](const Caller& caller) -> absl::Status {
                      LWQ_RETURN_IF_ERROR(CheckWorkerId(caller, request->worker_id()));
                      return DoRegister(*request, *response);
                    },
                    {request, response});
}

grpc::ServerUnaryReactor* WorkerServiceImpl::LeaseTasks(grpc::CallbackServerContext* context,
                                                        const v1::LeaseTasksRequest* request,
                                                        v1::LeaseTasksResponse* response) {
  auto* call = new LeaseCall(env_, context, *request, response);
  call->Begin();
  return call;
}

grpc::ServerUnaryReactor* WorkerServiceImpl::Heartbeat(grpc::CallbackServerContext* context,
                                                       const v1::HeartbeatRequest* request,
                                                       v1::HeartbeatResponse* response) {
  return RunUnaryAs(env_, context, kServiceName, "Heartbeat", *env_.beat,
                    [=, this](const Caller& caller) -> absl::Status {
                      LWQ_RETURN_IF_ERROR(CheckWorkerId(caller, request->worker_id()));
                      absl::StatusOr<v1::HeartbeatResponse> answer = env_.scheduler->Beat(*request);
                      CountRejected(env_.scheduler->metrics(), answer.status());
                      LWQ_RETURN_IF_ERROR(answer.status());
                      *response = *std::move(answer);
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* WorkerServiceImpl::CompleteTask(grpc::CallbackServerContext* context,
                                                          const v1::CompleteTaskRequest* request,
                                                          v1::CompleteTaskResponse*) {
  return RunUnaryAs(env_, context, kServiceName, "CompleteTask", *env_.tasks,
                    [=, this](const Caller& caller) -> absl::Status {
                      LWQ_RETURN_IF_ERROR(CheckWorkerId(caller, request->worker_id()));
                      absl::Status status = DoComplete(*request);
                      CountRejected(env_.scheduler->metrics(), status);
                      return status;
                    });
}

grpc::ServerUnaryReactor* WorkerServiceImpl::FailTask(grpc::CallbackServerContext* context,
                                                      const v1::FailTaskRequest* request,
                                                      v1::FailTaskResponse*) {
  return RunUnaryAs(
      env_, context, kServiceName, "FailTask", *env_.write,
      [=, this](const Caller& caller) -> absl::Status {
        LWQ_RETURN_IF_ERROR(CheckWorkerId(caller, request->worker_id()));
        spdlog::warn("failed task={} worker={}: {} {}", LogSafe(request->task().substr(0, 12)),
                     LogSafe(request->worker_id()), LogSafe(request->failure().reason()),
                     LogSafe(request->failure().message()));
        absl::Status status =
            env_.scheduler->Run([&](Draft& draft) { return lwq::FailTask(draft, *request); });
        if (status.ok()) env_.scheduler->SawWorker(request->worker_id());
        CountRejected(env_.scheduler->metrics(), status);
        return status;
      });
}

grpc::ServerUnaryReactor* WorkerServiceImpl::ReleaseTasks(grpc::CallbackServerContext* context,
                                                          const v1::ReleaseTasksRequest* request,
                                                          v1::ReleaseTasksResponse*) {
  return RunUnaryAs(env_, context, kServiceName, "ReleaseTasks", *env_.write,
                    [=, this](const Caller& caller) -> absl::Status {
                      LWQ_RETURN_IF_ERROR(CheckWorkerId(caller, request->worker_id()));
                      absl::Status status = env_.scheduler->Run(
                          [&](Draft& draft) { return lwq::ReleaseTasks(draft, *request); });
                      Failpoint("release.before_answer");
                      return status;
                    });
}

}  // namespace lwq
