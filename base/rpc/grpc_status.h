// The one conversion between absl::Status and grpc::Status. What a failure carries travels as the
// standard trailer grpc-status-details-bin: a google.rpc.Status with an ErrorInfo (reason, domain
// lwq.dev, facts), a BadRequest where fields are at fault, a QuotaFailure where quotas are used up
// and a RetryInfo where the same call may
// succeed later. Every gRPC library decodes it; C++ clients of lwq get the absl::Status back.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace lwq {

// The domain of lwq's reasons in an ErrorInfo.
inline constexpr char kErrorDomain[] = "lwq.dev";

// The message and the descriptions of fields are cut, so that everything fits into the 8 KiB of
// trailers that gRPC libraries accept by default.
grpc::Status ToGrpcStatus(const absl::Status& status);
// The status of a call as its caller sees it. CANCELLED becomes UNAVAILABLE: a caller that cancels
// knows why and does not ask, so it was the other side, which ends its calls when it stops.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace lwq
