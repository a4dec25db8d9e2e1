// What a request_id did: a call that is sent again under it must not act twice.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "server/dispatch/dispatch_state.h"
#include "server/store/store.h"

namespace lwq {

// One mutating call: its request_id, and what else it says.
struct RequestMark {
  // By tenants, none of which hears what another did. Empty: the caller sent none, and nothing is
  // remembered.
  std::string id;
  std::string fingerprint;  // of the message's type and all its other fields
};
// `request` has a field request_id. INVALID_ARGUMENT "REQUEST_ID_INVALID" unless it is empty or a
// UUID.
absl::StatusOr<RequestMark> MarkOf(const google::protobuf::Message& request,
                                   const std::string& tenant);

// The resource that the call made or changed when it came before; "" when it is new.
// INVALID_ARGUMENT "REQUEST_ID_REUSED" when it then said something else.
absl::StatusOr<std::string> FindRequest(Store& store, const RequestMark& mark);
// Once its commit was refused: the resource where the same call, sent twice at once, had its own
// made meanwhile; else why it was refused.
absl::StatusOr<std::string> FindOvertaking(Store& store, const RequestMark& mark,
                                           const absl::Status& refused);
// In the transaction that does what was asked.
void RememberRequest(const RequestMark& mark, const std::string& resource, Draft& draft);
// The same for what is written past the state machine.
std::vector<Write> RequestWrites(const RequestMark& mark, const std::string& resource, Moment now);

}  // namespace lwq
