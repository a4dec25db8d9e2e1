// Between callers and machines: everything takes its time, and some of it is lost, comes twice or
// comes late.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/failure.h"
#include "tests/simulation/machine.h"

namespace lwq::simulation {

struct NetworkFaults {
  double lost_request = 0;
  double lost_reply = 0;
  double twice = 0;
  double slow = 0;        // takes up to 3 s
  double cut_stream = 0;  // of each message of a stream: it ends there
};

class Network {
 public:
  template <typename Request, typename Response>
  using Method = std::function<grpc::ServerUnaryReactor*(SimServer&, grpc::CallbackServerContext*,
                                                         const Request*, Response*)>;
  template <typename Response>
  using Answer = std::function<void(const absl::Status&, const Response&)>;
  using Cancel = std::function<void()>;

  Network(World* world, const NetworkFaults* faults, std::vector<Machine*> machines)
      : world_(*world), faults_(*faults), machines_(std::move(machines)) {}

  int num_machines() const { return static_cast<int>(machines_.size()); }
  // Nothing of a caller's gets through.
  void CutOff(int peer, absl::Duration duration) { cut_until_[peer] = world_.now() + duration; }

  // `answer` is called once, UNAVAILABLE or DEADLINE_EXCEEDED when no answer came. What is returned
  // tells the server that the caller hung up; the caller then hears nothing more.
  template <typename Request, typename Response>
  Cancel Call(int peer, int machine, Method<Request, Response> method, Request request,
              absl::Duration timeout, Answer<Response> answer) {
    auto pending = std::make_shared<Pending<Request, Response>>();
    pending->answer = std::move(answer);
    world_.After(timeout, [this, pending] {
      if (pending->answer == nullptr) return;
      pending->Hear(absl::DeadlineExceededError("no answer in time"), {});
      HangUp(*pending);
    });
    if (IsLost(peer, faults_.lost_request)) {
      world_.Count("request is lost");
      FailSoon(pending);
    } else {
      world_.After(Delay(), [=, this] { Arrive(peer, machine, method, request, pending); });
    }
    if (world_.Chance(faults_.twice)) {
      world_.Count("request comes twice");
      auto nobody = std::make_shared<Pending<Request, Response>>();
      world_.After(Delay() + Delay(),
                   [=, this] { Arrive(peer, machine, method, request, nobody); });
    }
    return [this, pending] {
      pending->answer = nullptr;
      HangUp(*pending);
    };
  }

  // Messages arrive in their order; `end` comes once, after them.
  Cancel Watch(int peer, int machine, v1::WatchJobRequest request,
               std::function<void(const v1::JobEvent&)> hear,
               std::function<void(const absl::Status&)> end, absl::Duration slowest);

 private:
  template <typename Request, typename Response>
  struct Pending {
    Answer<Response> answer;
    std::weak_ptr<UnaryCall<Request, Response>> call;
    void Hear(const absl::Status& status, const Response& response) {
      if (auto heard = std::exchange(answer, nullptr)) heard(status, response);
    }
  };
  struct Stream {
    std::function<void(const v1::JobEvent&)> hear;
    std::function<void(const absl::Status&)> end;
    absl::Duration last = absl::ZeroDuration();  // when the last message arrives
    std::weak_ptr<WatchCall> call;
    bool cut = false;
    void End(const absl::Status& status) {
      if (auto ended = std::exchange(end, nullptr)) ended(status);
    }
  };

  absl::Duration Delay() {
    if (world_.Chance(faults_.slow)) {
      world_.Count("message is late");
      return world_.Between(absl::Milliseconds(10), absl::Seconds(3));
    }
    return world_.Between(absl::Microseconds(50), absl::Milliseconds(2));
  }
  bool IsLost(int peer, double probability) {
    auto cut = cut_until_.find(peer);
    return (cut != cut_until_.end() && world_.now() < cut->second) || world_.Chance(probability);
  }
  static absl::Status Gone() {
    return Failure(absl::StatusCode::kUnavailable, "UNAVAILABLE", "the connection broke");
  }
  template <typename Request, typename Response>
  void FailSoon(const std::shared_ptr<Pending<Request, Response>>& pending) {
    world_.After(world_.Between(absl::Milliseconds(1), absl::Seconds(2)),
                 [pending] { pending->Hear(Gone(), {}); });
  }
  template <typename Request, typename Response>
  void HangUp(const Pending<Request, Response>& pending) {
    world_.After(Delay(), [weak = pending.call] {
      if (auto call = weak.lock()) call->Cancel();
    });
  }

  template <typename Request, typename Response>
  void Arrive(int peer, int machine, const Method<Request, Response>& method,
              const Request& request, const std::shared_ptr<Pending<Request, Response>>& pending) {
    Machine& at = *machines_[machine];
    if (at.is_paused()) {
      world_.After(at.paused_until() - world_.now(),
                   [=, this] { Arrive(peer, machine, method, request, pending); });
      return;
    }
    SimServer* server = at.server();
    if (server == nullptr) {
      world_.After(Delay(), [pending] { pending->Hear(Gone(), {}); });
      return;
    }
    const int64_t gone =
        at.OnGone([=, this] { world_.After(Delay(), [pending] { pending->Hear(Gone(), {}); }); });
    auto call = std::make_shared<UnaryCall<Request, Response>>(
        &world_, request, [=, this, &at](const absl::Status& status, const Response& response) {
          at.NoLongerOnGone(gone);
          if (IsLost(peer, faults_.lost_reply)) {
            world_.Count("reply is lost");
            FailSoon(pending);
            return;
          }
          world_.After(Delay(), [=] { pending->Hear(status, response); });
        });
    pending->call = call;
    const int64_t number = server->Opened(call);
    call->Start([&](grpc::CallbackServerContext* context, const Request* asked,
                    Response* response) { return method(*server, context, asked, response); },
                [server, number] { server->Closed(number); });
  }

  void ArriveWatch(int peer, int machine, const v1::WatchJobRequest& request,
                   const std::shared_ptr<Stream>& stream, absl::Duration slowest);
  void Deliver(int peer, const std::shared_ptr<Stream>& stream, const v1::JobEvent& event);

  World& world_;
  const NetworkFaults& faults_;
  const std::vector<Machine*> machines_;
  std::map<int, absl::Duration> cut_until_;
};

}  // namespace lwq::simulation
