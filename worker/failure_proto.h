// What a failed task tells the server, and what its process tells the worker.
#pragma once

#include "absl/status/status.h"
#include "proto/lwq/v1/failure.pb.h"

namespace lwq {

// Reason, message, code, whether a retry can help and who can mend it, from a status of the engine.
v1::Failure FailureFromStatus(const absl::Status& status);
// Back, as far as a failure says it: code, reason and message.
absl::Status StatusFromFailure(const v1::Failure& failure);

}  // namespace lwq
