#include "base/rpc/grpc_status.h"

#include <string>

#include "base/failure.h"

namespace lwq {

// Both enumerations are google.rpc.Code, number for number.

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  constexpr size_t kMaxMessageBytes = 4000;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message().substr(0, kMaxMessageBytes)), ReasonOf(status));
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  if (status.error_code() == grpc::StatusCode::CANCELLED) {
    return absl::UnavailableError("the other side ended the call; it is probably stopping");
  }
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  if (status.error_details().empty()) return absl::Status(code, status.error_message());
  return Failure(code, status.error_details(), status.error_message());
}

}  // namespace lwq
