#include "server/service/call.h"

#include "base/failure.h"
#include "base/log.h"
#include "base/rpc/grpc_status.h"

namespace lwq {

void LiveCalls::Add(LongCall* call) {
  MutexLock lock(&mu_);
  ++count_;
  if (call != nullptr) long_calls_.insert(call);
}

void LiveCalls::Remove(LongCall* call) {
  MutexLock lock(&mu_);
  --count_;
  long_calls_.erase(call);
  changed_.SignalAll();
}

void LiveCalls::DrainAll() {
  MutexLock lock(&mu_);
  for (LongCall* call : long_calls_) call->Drain();
}

int LiveCalls::count() const {
  MutexLock lock(&mu_);
  return count_;
}

bool LiveCalls::WaitUntilNone(Clock& clock, absl::Duration timeout) {
  const absl::Duration deadline = clock.Steady() + timeout;
  MutexLock lock(&mu_);
  while (count_ > 0) {
    const absl::Duration left = deadline - clock.Steady();
    if (left <= absl::ZeroDuration()) return false;
    clock.WaitFor(changed_, &mu_, left);
  }
  return true;
}

CallRecord::CallRecord(ServiceEnv& env, grpc::CallbackServerContext* context, const char* service,
                       const char* method, LongCall* long_call)
    : env_(env),
      context_(context),
      service_(service),
      method_(method),
      long_call_(long_call),
      start_(env.scheduler->clock().Steady()) {
  env_.calls->Add(long_call_);
  env_.scheduler->metrics().RpcStarted(service_, method_);
}

CallRecord::~CallRecord() { env_.calls->Remove(long_call_); }

grpc::Status CallRecord::Close(const absl::Status& status) {
  const double seconds = absl::ToDoubleSeconds(env_.scheduler->clock().Steady() - start_);
  env_.scheduler->metrics().RpcEnded(service_, method_, status.code(), seconds);
  if (status.ok()) {
    spdlog::debug("{}.{} OK {:.3f} s", service_, method_, seconds);
    return grpc::Status::OK;
  }
  // A caller that hangs up is no news: idle workers do so when they stop.
  const auto level = absl::IsCancelled(status) ? spdlog::level::debug : spdlog::level::info;
  spdlog::log(level, "{}.{} {} {:.3f} s: {}", service_, method_, ReasonOf(status), seconds,
              LogSafe(status.message()));
  context_->AddTrailingMetadata("lwq-reason", ReasonOf(status));
  return ToGrpcStatus(status);
}

absl::Status OverloadedError() {
  return Failure(absl::StatusCode::kUnavailable, "OVERLOADED",
                 "the server has too much waiting work: try again in a moment");
}

absl::Status DrainingError() {
  return Failure(absl::StatusCode::kUnavailable, "DRAINING",
                 "the server is shutting down: try again when it is back");
}

grpc::ServerUnaryReactor* RunUnary(ServiceEnv& env, grpc::CallbackServerContext* context,
                                   const char* service, const char* method, Executor& executor,
                                   std::function<absl::Status()> body) {
  auto* call = new UnaryCall(env, context, service, method);
  if (absl::Status admitted = call->Admit(); !admitted.ok()) {
    call->End(admitted);
    return call;
  }
  if (env.scheduler->draining) {
    call->End(DrainingError());
    return call;
  }
  const bool posted = executor.Post([call, context, body = std::move(body)] {
    call->End(context->IsCancelled() ? absl::CancelledError("the caller has gone") : body());
  });
  if (!posted) call->End(OverloadedError());
  return call;
}

}  // namespace lwq
