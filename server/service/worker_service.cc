#include "server/service/worker_service.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "server/service/validation.h"

namespace lwq {
namespace {

constexpr char kService[] = "WorkerService";
constexpr int kMaxWaitSeconds = 20;
constexpr int kProtocol = 1;

google::protobuf::Duration ToDuration(int64_t us) {
  google::protobuf::Duration duration;
  duration.set_seconds(us / 1'000'000);
  duration.set_nanos(static_cast<int32_t>(us % 1'000'000) * 1000);
  return duration;
}

void CountRejected(ServerMetrics& metrics, const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (reason == "LEASE_LOST") metrics.LeaseRejected("lease_lost");
  if (reason == "INCARNATION_SUPERSEDED") metrics.LeaseRejected("superseded");
  if (reason == "WORKER_UNKNOWN") metrics.LeaseRejected("unknown");
}

// A long poll: tries, and tries again when a task may be ready, until its time is over.
class LeaseCall final : public grpc::ServerUnaryReactor, public LongCall {
 public:
  LeaseCall(ServiceEnv& env, grpc::CallbackServerContext* context,
            const v1::LeaseTasksRequest& request, v1::LeaseTasksResponse* response)
      : env_(env),
        request_(request),
        response_(response),
        deadline_(absl::Now() +
                  absl::Seconds(std::clamp(request.wait_seconds(), 0, kMaxWaitSeconds))),
        record_(env, context, kService, "LeaseTasks", this) {}

  void Begin() {
    lease_hint_ = env_.scheduler->hints().Add(kLeaseTopic, [this] { Wake(); });
    tick_hint_ = env_.scheduler->hints().Add(kTickTopic, [this] { Tick(); });
    Wake();
  }
  void Drain() override { End(DrainingError()); }
  void OnCancel() override { End(absl::CancelledError("the worker has gone")); }
  void OnDone() override {
    env_.scheduler->hints().Remove(lease_hint_);
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
  void Wake() {
    {
      MutexLock lock(&mu_);
      again_ = true;
      if (trying_ || done_) return;
      trying_ = true;
    }
    if (!env_.write->PostAlways([this] { Try(); })) {
      MutexLock lock(&mu_);
      trying_ = false;
    }
  }

  void Tick() {
    if (absl::Now() >= deadline_ || env_.scheduler->AnyReady()) Wake();
  }

  void Try() {
    bool delete_now = false;
    while (true) {
      {
        MutexLock lock(&mu_);
        if (done_ || !again_) {
          trying_ = false;
          delete_now = done_;
          break;
        }
        again_ = false;
      }
      TryOnce();
    }
    if (delete_now) delete this;
  }

  void TryOnce() {
    // A lease for a worker that hung up would be lost for a whole TTL.
    if (record_.finished()) return;
    std::vector<v1::Lease> leases;
    absl::Status status = env_.scheduler->Run([&](Draft& draft) -> absl::Status {
      LWQ_ASSIGN_OR_RETURN(leases, lwq::LeaseTasks(draft, request_));
      return absl::OkStatus();
    });
    if (!status.ok()) {
      CountRejected(env_.scheduler->metrics(), status);
      return End(status);
    }
    env_.scheduler->SawWorker(request_.worker_id());
    if (leases.empty() && absl::Now() < deadline_) return;
    if (!record_.TakeFinish()) return GiveBack(leases);
    // The context is there until the call is finished, and nobody else finishes it from here on.
    if (record_.context()->IsCancelled()) {
      GiveBack(leases);
      return Finish(record_.Close(absl::CancelledError("the worker has gone")));
    }
    for (v1::Lease& lease : leases) *response_->add_leases() = std::move(lease);
    Finish(record_.Close(absl::OkStatus()));
  }

  // The call ended while the leases were made: nobody has heard of them.
  void GiveBack(const std::vector<v1::Lease>& leases) {
    if (leases.empty()) return;
    v1::ReleaseTasksRequest release;
    release.set_worker_id(request_.worker_id());
    release.set_incarnation(request_.incarnation());
    for (const v1::Lease& lease : leases) release.add_tasks(lease.task());
    env_.scheduler->Run([&](Draft& draft) { return lwq::ReleaseTasks(draft, release); })
        .IgnoreError();
  }

  void End(const absl::Status& status) {
    if (record_.TakeFinish()) Finish(record_.Close(status));
  }

  ServiceEnv& env_;
  const v1::LeaseTasksRequest request_;
  v1::LeaseTasksResponse* const response_;
  const absl::Time deadline_;
  CallRecord record_;
  int64_t lease_hint_ = 0;
  int64_t tick_hint_ = 0;
  Mutex mu_;
  bool trying_ ABSL_GUARDED_BY(mu_) = false;
  bool again_ ABSL_GUARDED_BY(mu_) = false;
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
  LWQ_RETURN_IF_ERROR(errors.status());
  if (request.protocol() < kProtocol) {
    return PreconditionFailure("WORKER_TOO_OLD",
                               absl::StrCat("worker protocol ", request.protocol(),
                                            ", this server needs at least ", kProtocol));
  }
  LWQ_RETURN_IF_ERROR(
      env_.scheduler->Run([&](Draft& draft) { return lwq::RegisterWorker(draft, request); }));
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
      return PreconditionFailure("OUTPUT_MISSING",
                                 absl::StrCat("output ", blob.name(), " names blob ",
                                              blob.blob().sha256(), ", which is not there"));
    }
  }
  absl::Status status =
      scheduler.Run([&](Draft& draft) { return lwq::CompleteTask(draft, request); });
  if (ReasonOf(status) != "LEASE_LOST" || request.completion_id().empty()) return status;
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
  return RunUnary(env_, context, kService, "RegisterWorker", *env_.write,
                  [=, this] { return DoRegister(*request, *response); });
}

grpc::ServerUnaryReactor* WorkerServiceImpl::LeaseTasks(grpc::CallbackServerContext* context,
                                                        const v1::LeaseTasksRequest* request,
                                                        v1::LeaseTasksResponse* response) {
  if (env_.scheduler->draining) {
    auto* call = new UnaryCall(env_, context, kService, "LeaseTasks");
    call->End(DrainingError());
    return call;
  }
  auto* call = new LeaseCall(env_, context, *request, response);
  call->Begin();
  return call;
}

grpc::ServerUnaryReactor* WorkerServiceImpl::Heartbeat(grpc::CallbackServerContext* context,
                                                       const v1::HeartbeatRequest* request,
                                                       v1::HeartbeatResponse* response) {
  return RunUnary(env_, context, kService, "Heartbeat", *env_.read, [=, this]() -> absl::Status {
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
  return RunUnary(env_, context, kService, "CompleteTask", *env_.write, [=, this] {
    absl::Status status = DoComplete(*request);
    CountRejected(env_.scheduler->metrics(), status);
    return status;
  });
}

grpc::ServerUnaryReactor* WorkerServiceImpl::FailTask(grpc::CallbackServerContext* context,
                                                      const v1::FailTaskRequest* request,
                                                      v1::FailTaskResponse*) {
  return RunUnary(env_, context, kService, "FailTask", *env_.write, [=, this] {
    spdlog::warn("worker {}: task {} failed: {} {}", LogSafe(request->worker_id()),
                 LogSafe(request->task()), LogSafe(request->failure().reason()),
                 LogSafe(request->failure().message()));
    absl::Status status =
        env_.scheduler->Run([&](Draft& draft) { return lwq::FailTask(draft, *request); });
    CountRejected(env_.scheduler->metrics(), status);
    return status;
  });
}

grpc::ServerUnaryReactor* WorkerServiceImpl::ReleaseTasks(grpc::CallbackServerContext* context,
                                                          const v1::ReleaseTasksRequest* request,
                                                          v1::ReleaseTasksResponse*) {
  return RunUnary(env_, context, kService, "ReleaseTasks", *env_.write, [=, this] {
    return env_.scheduler->Run([&](Draft& draft) { return lwq::ReleaseTasks(draft, *request); });
  });
}

}  // namespace lwq
