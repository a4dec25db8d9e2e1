#include "worker/failure_proto.h"

#include <string>

#include "absl/strings/match.h"
#include "base/failure.h"
#include "base/log.h"

namespace lwq {
namespace {

// Reasons that speak of a model's files. Prefixes: ST_ (safetensors), INDEX_ (shard index), ...
bool IsModelReason(absl::string_view reason) {
  for (absl::string_view prefix : {"ST_", "INDEX_", "TENSOR_", "CONFIG_", "TOKENIZER_", "JSON_",
                                   "NON_FINITE", "MODEL_", "ARCH_"}) {
    if (absl::StartsWith(reason, prefix)) return true;
  }
  return false;
}

v1::Failure::Blame BlameOf(const absl::Status& status, absl::string_view reason) {
  if (IsModelReason(reason)) return v1::Failure::MODEL;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kOutOfRange:
      return v1::Failure::USER;
    case absl::StatusCode::kDataLoss:
      return v1::Failure::MODEL;
    case absl::StatusCode::kResourceExhausted:
      return v1::Failure::CAPACITY;
    default:
      return v1::Failure::SERVICE;
  }
}

}  // namespace

v1::Failure FailureFromStatus(const absl::Status& status) {
  v1::Failure failure;
  const std::string reason = ReasonOf(status);
  failure.set_reason(reason);
  failure.set_message(LogSafe(status.message()));
  failure.set_code(static_cast<int>(status.code()));
  failure.set_blame(BlameOf(status, reason));
  // A fault here or of the machine may pass; a fault of the input will not.
  failure.set_retryable(IsRetryable(status) || status.code() == absl::StatusCode::kInternal ||
                        status.code() == absl::StatusCode::kUnknown || reason == "BLOB_CORRUPT" ||
                        reason == "BLOB_MISSING");
  return failure;
}

}  // namespace lwq
