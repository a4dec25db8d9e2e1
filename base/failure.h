// A machine-readable reason on an absl::Status: UPPER_SNAKE, such as "ST_OVERLAP" or
// "BUDGET_INFEASIBLE". It travels as a payload, through gRPC (base/rpc/grpc_status.h) and into
// stored failures, so that clients branch on it and never on the text.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lwq {

// Who can mend a failure.
enum class Blame { kUser, kModel, kCapacity, kService };

// A status of `code` with `reason` and `message`.
absl::Status Failure(absl::StatusCode code, absl::string_view reason, absl::string_view message);

// The commonest forms: INVALID_ARGUMENT (the caller's mistake), DATA_LOSS (a file is damaged or
// hostile), FAILED_PRECONDITION.
absl::Status InvalidFailure(absl::string_view reason, absl::string_view message);
absl::Status CorruptFailure(absl::string_view reason, absl::string_view message);
absl::Status PreconditionFailure(absl::string_view reason, absl::string_view message);

// The reason put on `status`, or one derived from its code ("INTERNAL", "UNAVAILABLE", ...).
std::string ReasonOf(const absl::Status& status);

// Whether the same call may succeed later: UNAVAILABLE, DEADLINE_EXCEEDED, ABORTED.
bool IsRetryable(const absl::Status& status);

// Payload type under which the reason is stored. Durable; do not rename.
inline constexpr char kReasonPayload[] = "type.lwq.dev/reason";

}  // namespace lwq
