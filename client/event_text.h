// A job's event as a line of its log.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "proto/lwq/v1/event.pb.h"

namespace lwq::client {

// "2026-11-29T01:02:03Z".
std::string TimeText(absl::Time time);

// "2026-11-29T01:02:03Z  quantize layer 3  done in 3.2s on w1  (task 3f2a90c1d4e5)"; "" for events
// that are neither of a task nor of the job's state.
std::string EventText(const v1::JobEvent& event);

}  // namespace lwq::client
