#include "server/service/call.h"

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/rpc/grpc_status.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// A field of type string; "" where the message has none of that name.
std::string TextIn(const google::protobuf::Message& message, const std::string& name) {
  const google::protobuf::FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
  if (field == nullptr || field->is_repeated() ||
      field->type() != google::protobuf::FieldDescriptor::TYPE_STRING) {
    return "";
  }
  return message.GetReflection()->GetString(message, field);
}

// The name of what was made or changed: in the answer, or else as it was asked for.
std::string ResourceOf(const Messages& messages) {
  for (const google::protobuf::Message* message : {messages.response, messages.request}) {
    if (message == nullptr) continue;
    if (std::string name = TextIn(*message, "name"); !name.empty()) return name;
    const google::protobuf::FieldDescriptor* token =
        message->GetDescriptor()->FindFieldByName("token");
    if (token != nullptr && token->message_type() != nullptr) {
      const auto& made = message->GetReflection()->GetMessage(*message, token);
      if (std::string name = TextIn(made, "name"); !name.empty()) return name;
    }
    for (const char* collection : {"job", "model", "dataset", "worker"}) {
      const std::string id = TextIn(*message, absl::StrCat(collection, "_id"));
      if (!id.empty()) return absl::StrCat(collection, "s/", id);
    }
  }
  return "";
}

// " request=ID resource=jobs/j" of a call that changes something, by which its line is found.
std::string RequestText(const Messages& messages) {
  const std::string id = messages.request == nullptr ? "" : TextIn(*messages.request, "request_id");
  if (id.empty()) return "";
  const std::string resource = ResourceOf(messages);
  return absl::StrCat(" request=", LogSafe(id),
                      resource.empty() ? "" : " resource=", LogSafe(resource));
}

}  // namespace

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

CallRecord::~CallRecord() {
  if (counted_) env_.limits->Leave(caller_, method_);
  env_.calls->Remove(long_call_);
}

absl::Status CallRecord::Admit() {
  LWQ_RETURN_IF_ERROR(env_.guard->Admit(*context_, service_, method_, &caller_));
  if (env_.limits == nullptr) return absl::OkStatus();
  LWQ_RETURN_IF_ERROR(env_.limits->Enter(caller_, method_));
  counted_ = true;
  return absl::OkStatus();
}

void CallRecord::Audit(const absl::Status& status) const {
  const bool refused = absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status);
  if (env_.audit == nullptr || (!refused && !IsAudited(service_, method_, caller_.role))) return;
  AuditEntry entry;
  entry.caller = caller_.name;
  entry.principal = caller_.principal;
  entry.role = std::string(NameOf(caller_.role));
  entry.peer = context_->peer();
  entry.method = absl::StrCat(service_, ".", method_);
  entry.resource = resource_.empty() ? ResourceOf(messages_) : resource_;
  if (messages_.request != nullptr) entry.request_id = TextIn(*messages_.request, "request_id");
  entry.outcome = status.ok() ? "OK" : ReasonOf(status);
  env_.audit->Write(entry);
}

grpc::Status CallRecord::Close(const absl::Status& status) {
  Audit(status);
  const double seconds = absl::ToDoubleSeconds(env_.scheduler->clock().Steady() - start_);
  env_.scheduler->metrics().RpcEnded(service_, method_, status.code(), seconds);
  const std::string request = RequestText(messages_);
  if (status.ok()) {
    spdlog::log(request.empty() ? spdlog::level::debug : spdlog::level::info, "{}.{} OK {:.3f} s{}",
                service_, method_, seconds, request);
    return grpc::Status::OK;
  }
  // A caller that hangs up is no news: idle workers do so when they stop.
  const auto level = absl::IsCancelled(status) ? spdlog::level::debug : spdlog::level::info;
  spdlog::log(level, "{}.{} {} {:.3f} s{}: {}", service_, method_, ReasonOf(status), seconds,
              request, LogSafe(status.message()));
  context_->AddTrailingMetadata("lwq-reason", ReasonOf(status));
  return ToGrpcStatus(status);
}

absl::Status OverloadedError() {
  return Failure(reasons::kOverloaded,
                 "the server has too much waiting work: try again in a moment");
}

absl::Status DrainingError() {
  return Failure(reasons::kDraining, "the server is shutting down: try again when it is back");
}

grpc::ServerUnaryReactor* RunUnary(ServiceEnv& env, grpc::CallbackServerContext* context,
                                   const char* service, const char* method, Executor& executor,
                                   std::function<absl::Status()> body, const Messages& messages) {
  return RunUnaryAs(
      env, context, service, method, executor,
      [body = std::move(body)](const Caller&) { return body(); }, messages);
}

grpc::ServerUnaryReactor* RunUnaryAs(ServiceEnv& env, grpc::CallbackServerContext* context,
                                     const char* service, const char* method, Executor& executor,
                                     std::function<absl::Status(const Caller&)> body,
                                     const Messages& messages) {
  auto* call = new UnaryCall(env, context, service, method, messages);
  if (absl::Status admitted = call->Admit(); !admitted.ok()) {
    call->End(admitted);
    return call;
  }
  if (env.scheduler->draining) {
    call->End(DrainingError());
    return call;
  }
  const bool posted = executor.Post([call, context, body = std::move(body)] {
    call->End(context->IsCancelled() ? absl::CancelledError("the caller has gone")
                                     : body(call->caller()));
  });
  if (!posted) call->End(OverloadedError());
  return call;
}

}  // namespace lwq
