// RPCs without a network: the server's own reactors, bound to calls that a simulation makes, so
// that handlers, long polls and streams run as they are.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "base/rpc/grpc_status.h"
#include "proto/lwq/v1/event.pb.h"
#include "proto/lwq/v1/job_service.pb.h"
#include "tests/simulation/world.h"

namespace lwq::simulation {

// One call at the server. Its reactor is told that the call is over from an event of its own, as
// the library does it from another thread.
class OpenCall {
 public:
  virtual ~OpenCall() = default;
  // The caller has gone.
  virtual void Cancel() = 0;
  // The reactor is told, and deletes itself. Once.
  virtual void Close() = 0;
  virtual bool finished() const = 0;
  // Whoever is to hear of it does not any more.
  virtual void Forget() = 0;
};

template <typename Request, typename Response>
class UnaryCall final : public grpc::ServerCallbackUnary,
                        public OpenCall,
                        public std::enable_shared_from_this<UnaryCall<Request, Response>> {
 public:
  using Begin = std::function<grpc::ServerUnaryReactor*(grpc::CallbackServerContext*,
                                                        const Request*, Response*)>;
  using Answer = std::function<void(const absl::Status&, const Response&)>;

  UnaryCall(World* world, Request request, Answer answer)
      : world_(*world), request_(std::move(request)), answer_(std::move(answer)) {}

  // `closed` is called when the server has done with it.
  void Start(const Begin& begin, std::function<void()> closed) {
    closed_ = std::move(closed);
    reactor_ = begin(&context_, &request_, &response_);
    BindReactor(reactor_);
  }
  void Finish(grpc::Status status) override {
    status_ = std::move(status);
    finished_ = true;
    world_.After(world_.Between(absl::ZeroDuration(), absl::Microseconds(200)),
                 [self = this->shared_from_this()] { self->Close(); });
  }
  void SendInitialMetadata() override {}
  void Cancel() override {
    if (!finished_) reactor_->OnCancel();
  }
  void Close() override {
    if (std::exchange(over_, true)) return;
    reactor_->OnDone();
    if (answer_) answer_(FromGrpcStatus(status_), response_);
    if (closed_) closed_();
  }
  bool finished() const override { return finished_; }
  void Forget() override {
    answer_ = nullptr;
    closed_ = nullptr;
  }
  const Request& request() const { return request_; }

 private:
  grpc::internal::ServerReactor* reactor() override { return reactor_; }
  void CallOnDone() override {}

  World& world_;
  const Request request_;
  Response response_;
  grpc::CallbackServerContext context_;
  grpc::ServerUnaryReactor* reactor_ = nullptr;
  grpc::Status status_;
  bool finished_ = false;
  bool over_ = false;
  Answer answer_;
  std::function<void()> closed_;
};

// A watcher's stream at the server, event after event.
class WatchCall final : public grpc::ServerCallbackWriter<v1::JobEvent>,
                        public OpenCall,
                        public std::enable_shared_from_this<WatchCall> {
 public:
  using Begin = std::function<grpc::ServerWriteReactor<v1::JobEvent>*(grpc::CallbackServerContext*,
                                                                      const v1::WatchJobRequest*)>;
  // How long the stream takes for one event until it has room for the next.
  using Pace = std::function<absl::Duration()>;

  WatchCall(World* world, v1::WatchJobRequest request,
            std::function<void(const v1::JobEvent&)> hear,
            std::function<void(const absl::Status&)> end, Pace pace)
      : world_(*world),
        request_(std::move(request)),
        at_(request_.resume_seq()),
        hear_(std::move(hear)),
        end_(std::move(end)),
        pace_(std::move(pace)) {}

  void Start(const Begin& begin, std::function<void()> closed) {
    closed_ = std::move(closed);
    reactor_ = begin(&context_, &request_);
    BindReactor(reactor_);
  }
  void Write(const v1::JobEvent* event, grpc::WriteOptions) override {
    writing_ = true;
    at_ = event->seq();
    if (hear_) hear_(*event);
    world_.After(pace_(), [self = shared_from_this()] { self->Written(); });
  }
  void WriteAndFinish(const v1::JobEvent* event, grpc::WriteOptions options,
                      grpc::Status status) override {
    Write(event, options);
    Finish(std::move(status));
  }
  void Finish(grpc::Status status) override {
    status_ = std::move(status);
    finished_ = true;
    world_.After(absl::Microseconds(100), [self = shared_from_this()] { self->Close(); });
  }
  void SendInitialMetadata() override {}
  void Cancel() override {
    gone_ = true;
    if (!finished_) reactor_->OnCancel();
  }
  void Close() override {
    if (over_) return;
    if (writing_) {
      // An event that is under way ends first.
      gone_ = true;
      Written();
    }
    over_ = true;
    reactor_->OnDone();
    if (end_) end_(FromGrpcStatus(status_));
    if (closed_) closed_();
  }
  bool finished() const override { return finished_; }
  void Forget() override {
    hear_ = nullptr;
    end_ = nullptr;
    closed_ = nullptr;
  }
  // Whether an event is on its way, and the server waits.
  bool writing() const { return writing_; }
  const std::string& job() const { return request_.name(); }
  // The number of the last event that was sent.
  int64_t at() const { return at_; }

 private:
  grpc::internal::ServerReactor* reactor() override { return reactor_; }
  void CallOnDone() override {}
  void Written() {
    if (over_ || !writing_) return;
    writing_ = false;
    reactor_->OnWriteDone(!gone_);
  }

  World& world_;
  const v1::WatchJobRequest request_;
  int64_t at_;
  grpc::CallbackServerContext context_;
  grpc::ServerWriteReactor<v1::JobEvent>* reactor_ = nullptr;
  std::function<void(const v1::JobEvent&)> hear_;
  std::function<void(const absl::Status&)> end_;
  const Pace pace_;
  std::function<void()> closed_;
  grpc::Status status_;
  bool writing_ = false;
  bool gone_ = false;
  bool finished_ = false;
  bool over_ = false;
};

}  // namespace lwq::simulation
