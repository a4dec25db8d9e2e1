// The one conversion between absl::Status and grpc::Status. The reason (base/failure.h) travels as
// the binary error details, so that any C++ client gets it back, and as the trailer "lwq-reason"
// where the service edge sets it.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace lwq {

// The message is cut to 4,000 bytes: a longer one would be refused as a header.
grpc::Status ToGrpcStatus(const absl::Status& status);
// The status of a call as its caller sees it. CANCELLED becomes UNAVAILABLE: a caller that cancels
// knows why and does not ask, so it was the other side, which ends its calls when it stops.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace lwq
