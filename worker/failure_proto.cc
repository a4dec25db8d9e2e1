#include "worker/failure_proto.h"

#include "base/failure.h"
#include "base/log.h"
#include "base/reasons.h"

namespace lwq {

v1::Failure FailureFromStatus(const absl::Status& status) {
  v1::Failure failure;
  failure.set_reason(ReasonOf(status));
  failure.set_message(LogSafe(status.message()));
  failure.set_code(static_cast<int>(status.code()));
  const Reason& line = ReasonLine(failure.reason(), status.code());
  switch (line.blame) {
    case Blame::kUser:
      failure.set_blame(v1::Failure::USER);
      break;
    case Blame::kModel:
      failure.set_blame(v1::Failure::MODEL);
      break;
    case Blame::kCapacity:
      failure.set_blame(v1::Failure::CAPACITY);
      break;
    case Blame::kService:
      failure.set_blame(v1::Failure::SERVICE);
      break;
  }
  failure.set_retryable(line.retry.attempts > 0 || line.retry.remakes_inputs);
  return failure;
}

absl::Status StatusFromFailure(const v1::Failure& failure) {
  absl::StatusCode code = static_cast<absl::StatusCode>(failure.code());
  if (code == absl::StatusCode::kOk) code = absl::StatusCode::kInternal;
  if (failure.reason() == absl::StatusCodeToString(code)) return {code, failure.message()};
  return Failure(code, failure.reason(), failure.message());
}

}  // namespace lwq
