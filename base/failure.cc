#include "base/failure.h"

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"

namespace lwq {

absl::Status Failure(absl::StatusCode code, absl::string_view reason, absl::string_view message) {
  absl::Status status(code, message);
  status.SetPayload(kReasonPayload, absl::Cord(reason));
  return status;
}

absl::Status InvalidFailure(absl::string_view reason, absl::string_view message) {
  return Failure(absl::StatusCode::kInvalidArgument, reason, message);
}

absl::Status CorruptFailure(absl::string_view reason, absl::string_view message) {
  return Failure(absl::StatusCode::kDataLoss, reason, message);
}

absl::Status PreconditionFailure(absl::string_view reason, absl::string_view message) {
  return Failure(absl::StatusCode::kFailedPrecondition, reason, message);
}

std::string ReasonOf(const absl::Status& status) {
  if (auto payload = status.GetPayload(kReasonPayload)) return std::string(*payload);
  return absl::StatusCodeToString(status.code());
}

bool IsRetryable(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsAborted(status);
}

}  // namespace lwq
