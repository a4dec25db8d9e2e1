// The life of an RPC on the server: finished exactly once, counted, logged, and its status turned
// into gRPC's with the reason in the trailer "lwq-reason". Handlers never block: RunUnary posts the
// body to an executor.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "google/protobuf/message.h"
#include "server/service/audit_log.h"
#include "server/service/caller_limits.h"
#include "server/service/executor.h"
#include "server/service/guard.h"
#include "server/service/scheduler.h"

namespace lwq {

// A call that stays open for long: it has to be told when the server drains.
class LongCall {
 public:
  virtual ~LongCall() = default;
  // Ends the call soon. Called from any thread, at most once.
  virtual void Drain() = 0;
};

// All open calls. Thread-safe.
class LiveCalls {
 public:
  void Add(LongCall* call);  // null for short ones
  void Remove(LongCall* call);
  void DrainAll();
  int count() const;
  bool WaitUntilNone(Clock& clock, absl::Duration timeout);

 private:
  mutable Mutex mu_;
  CondVar changed_;
  int count_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<LongCall*> long_calls_ ABSL_GUARDED_BY(mu_);
};

// What every service is given; all of it outlives the services.
struct ServiceEnv {
  Scheduler* scheduler = nullptr;
  Executor* write = nullptr;  // one thread: everything that commits, but for
  Executor* tasks = nullptr;  // leases and results, which commit together
  Executor* read = nullptr;
  Executor* blob = nullptr;
  Executor* beat = nullptr;   // heartbeats alone: nothing else may make them wait
  Executor* watch = nullptr;  // watchers' reads
  Executor* files = nullptr;  // looks at directories that users name, which may hang
  LiveCalls* calls = nullptr;
  const Guard* guard = nullptr;
  CallerLimits* limits = nullptr;  // null: none, as nobody is asked who it is
  AuditLog* audit = nullptr;       // null: none is kept
  std::string data_directory;
  std::vector<std::string> model_roots;  // empty: any absolute directory
  std::function<void()> request_drain;
  absl::Time start_time;
};

// What a call that changes something was asked and answered, for the audit log. Both outlive the
// call.
struct Messages {
  const google::protobuf::Message* request = nullptr;
  const google::protobuf::Message* response = nullptr;
};

// Bookkeeping of one call; a member of each reactor.
class CallRecord {
 public:
  CallRecord(ServiceEnv& env, grpc::CallbackServerContext* context, const char* service,
             const char* method, LongCall* long_call = nullptr);
  ~CallRecord();

  // True for the first caller alone: that one must finish the call with what Close returns.
  bool TakeFinish() { return !finished_.exchange(true); }
  bool finished() const { return finished_; }
  // Whether the caller may call it, now. Whoever begins the call ends it with this unless it is OK.
  absl::Status Admit();
  // The same of a call that is open for long.
  absl::Status MayStay() const { return env_.guard->MayStay(caller_); }
  const Caller& caller() const { return caller_; }
  // What is to be written of it if it is audited; before Close.
  void SetMessages(const Messages& messages) { messages_ = messages; }
  void SetResource(std::string resource) { resource_ = std::move(resource); }
  grpc::Status Close(const absl::Status& status);
  grpc::CallbackServerContext* context() const { return context_; }
  ServiceEnv& env() const { return env_; }

 private:
  void Audit(const absl::Status& status) const;

  ServiceEnv& env_;
  grpc::CallbackServerContext* const context_;
  const char* const service_;
  const char* const method_;
  LongCall* const long_call_;
  const absl::Duration start_;  // by the steady clock
  Caller caller_;
  bool counted_ = false;  // by env_.limits
  Messages messages_;
  std::string resource_;
  std::atomic<bool> finished_{false};
};

absl::Status OverloadedError();
absl::Status DrainingError();

class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(ServiceEnv& env, grpc::CallbackServerContext* context, const char* service,
            const char* method, const Messages& messages)
      : record_(env, context, service, method) {
    record_.SetMessages(messages);
  }
  void End(const absl::Status& status) {
    if (record_.TakeFinish()) Finish(record_.Close(status));
  }
  absl::Status Admit() { return record_.Admit(); }
  const Caller& caller() const { return record_.caller(); }
  void OnDone() override { delete this; }
  void OnCancel() override {}

 private:
  CallRecord record_;
};

// Runs `body` on `executor` and finishes the call with its status. `messages`: of a method that
// changes something.
grpc::ServerUnaryReactor* RunUnary(ServiceEnv& env, grpc::CallbackServerContext* context,
                                   const char* service, const char* method, Executor& executor,
                                   std::function<absl::Status()> body,
                                   const Messages& messages = {});
// The same for a body that asks who calls.
grpc::ServerUnaryReactor* RunUnaryAs(ServiceEnv& env, grpc::CallbackServerContext* context,
                                     const char* service, const char* method, Executor& executor,
                                     std::function<absl::Status(const Caller&)> body,
                                     const Messages& messages = {});

}  // namespace lwq
