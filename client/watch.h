// Following a job to its end over broken connections and server restarts.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client.h"

namespace lwq::client {

// Where a watch begins: after an event, or with a snapshot; or with the first event that is kept.
struct WatchFrom {
  int64_t seq = 0;
  bool first_event = false;
};

// Calls `on_event` for every event from there on, each durable one once and in order, and
// returns the job when it is terminal. Reconnects by itself after the last event seen, for as long
// as the client's retry_for allows without any news; `on_reconnect`, if set, is told once per
// outage. An error of `on_event` ends the watch with it.
absl::StatusOr<v1::Job> WatchJob(
    Client* client, const std::string& name,
    const std::function<absl::Status(const v1::JobEvent&)>& on_event,
    const std::function<void(const absl::Status&)>& on_reconnect = nullptr, WatchFrom from = {});

}  // namespace lwq::client
