// Reading a server's stream with an eye on silence: blocking reads cannot be given a time of their
// own, so a second thread cancels the call when nothing has come for too long or when the caller's
// may_go_on says stop.
#pragma once

#include <functional>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "base/rpc/grpc_status.h"
#include "client/client.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/sync_stream.h"

namespace lwq::client {

// Runs from construction to Stop().
class StreamWatch {
 public:
  StreamWatch(const ClientOptions& options, absl::Duration idle_limit, grpc::ClientContext* context)
      : options_(options), idle_limit_(idle_limit), context_(context), thread_([this] { Run(); }) {}
  ~StreamWatch() { Stop().IgnoreError(); }

  void SawMessage() {
    MutexLock lock(&mu_);
    last_message_ = absl::Now();
  }
  // Why the stream was cancelled; OK when it was not.
  absl::Status Stop() {
    {
      MutexLock lock(&mu_);
      stopped_ = true;
      changed_.SignalAll();
    }
    if (thread_.joinable()) thread_.join();
    MutexLock lock(&mu_);
    return reason_;
  }

 private:
  void Run() {
    while (true) {
      {
        MutexLock lock(&mu_);
        if (!stopped_) changed_.WaitFor(&mu_, absl::Milliseconds(200));
        if (stopped_) return;
        if (absl::Now() - last_message_ > idle_limit_) {
          reason_ = absl::UnavailableError("the server's stream fell silent");
        }
      }
      const absl::Status go_on = options_.may_go_on ? options_.may_go_on() : absl::OkStatus();
      MutexLock lock(&mu_);
      if (!go_on.ok()) reason_ = go_on;
      if (reason_.ok()) continue;
      context_->TryCancel();
      return;
    }
  }

  const ClientOptions& options_;
  const absl::Duration idle_limit_;
  grpc::ClientContext* const context_;
  Mutex mu_;
  CondVar changed_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time last_message_ ABSL_GUARDED_BY(mu_) = absl::Now();
  absl::Status reason_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // last: it uses all of the above
};

// Hands every message to `on_message`; its error ends the stream.
template <typename Message>
absl::Status ReadStream(const ClientOptions& options, absl::Duration idle_limit,
                        grpc::ClientContext* context, grpc::ClientReader<Message>* reader,
                        const std::function<absl::Status(const Message&)>& on_message) {
  StreamWatch watch(options, idle_limit, context);
  Message message;
  absl::Status refused;
  while (refused.ok() && reader->Read(&message)) {
    watch.SawMessage();
    refused = on_message(message);
  }
  if (!refused.ok()) {
    context->TryCancel();
    while (reader->Read(&message)) continue;
  }
  const absl::Status cancelled = watch.Stop();
  const absl::Status finished = FromGrpcStatus(reader->Finish());
  if (!refused.ok()) return refused;
  // A stream that ended OK is whole, whatever the watch thought.
  if (finished.ok() || cancelled.ok()) return finished;
  return cancelled;
}

}  // namespace lwq::client
