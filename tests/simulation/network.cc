#include "tests/simulation/network.h"

#include <algorithm>

namespace lwq::simulation {

Network::Cancel Network::Watch(int peer, int machine, v1::WatchJobRequest request,
                               std::function<void(const v1::JobEvent&)> hear,
                               std::function<void(const absl::Status&)> end,
                               absl::Duration slowest) {
  auto stream = std::make_shared<Stream>();
  stream->hear = std::move(hear);
  stream->end = std::move(end);
  if (IsLost(peer, faults_.lost_request)) {
    world_.After(Delay(), [stream] { stream->End(Gone()); });
  } else {
    world_.After(Delay(), [=, this] { ArriveWatch(peer, machine, request, stream, slowest); });
  }
  return [this, stream] {
    stream->cut = true;
    stream->end = nullptr;
    world_.After(Delay(), [weak = stream->call] {
      if (auto call = weak.lock()) call->Cancel();
    });
  };
}

void Network::ArriveWatch(int peer, int machine, const v1::WatchJobRequest& request,
                          const std::shared_ptr<Stream>& stream, absl::Duration slowest) {
  Machine& at = *machines_[machine];
  if (at.is_paused()) {
    world_.After(at.paused_until() - world_.now(),
                 [=, this] { ArriveWatch(peer, machine, request, stream, slowest); });
    return;
  }
  SimServer* server = at.server();
  if (server == nullptr || stream->cut) {
    world_.After(Delay(), [stream] { stream->End(Gone()); });
    return;
  }
  const int64_t gone = at.OnGone([=, this] {
    stream->cut = true;
    world_.After(Delay(), [stream] { stream->End(Gone()); });
  });
  auto call = std::make_shared<WatchCall>(
      &world_, request, [=, this](const v1::JobEvent& event) { Deliver(peer, stream, event); },
      [=, this, &at](const absl::Status& status) {
        at.NoLongerOnGone(gone);
        const absl::Duration wait =
            std::max(Delay(), stream->last - world_.now() + absl::Microseconds(1));
        world_.After(wait, [stream, status] {
          if (!stream->cut) stream->End(status);
        });
      },
      [this, slowest] { return world_.Between(absl::Microseconds(50), slowest); });
  stream->call = call;
  const int64_t number = server->Opened(call);
  call->Start(
      [server](grpc::CallbackServerContext* context, const v1::WatchJobRequest* asked) {
        return server->jobs().WatchJob(context, asked);
      },
      [server, number] { server->Closed(number); });
}

void Network::Deliver(int peer, const std::shared_ptr<Stream>& stream, const v1::JobEvent& event) {
  if (stream->cut) return;
  if (IsLost(peer, faults_.cut_stream)) {
    world_.Count("stream is cut");
    stream->cut = true;
    world_.After(Delay(), [stream] { stream->End(Gone()); });
    world_.After(Delay(), [weak = stream->call] {
      if (auto call = weak.lock()) call->Cancel();
    });
    return;
  }
  stream->last = std::max(stream->last + absl::Microseconds(1), world_.now() + Delay());
  world_.After(stream->last - world_.now(), [stream, event] {
    if (!stream->cut && stream->end) stream->hear(event);
  });
}

}  // namespace lwq::simulation
