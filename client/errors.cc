#include "client/errors.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/failure.h"
#include "base/failure_details.h"
#include "base/log.h"
#include "base/reasons.h"
#include "nlohmann/json.hpp"

namespace lwq::client {
namespace {

absl::string_view AdviceFor(const absl::Status& status) {
  return ReasonLine(ReasonOf(status), status.code()).help;
}

// Line breaks stay, everything else that could move a cursor goes.
std::string Printable(absl::string_view text) {
  std::string result;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    absl::StrAppend(&result, result.empty() ? "" : "\n       ", LogSafe(line));
  }
  return result;
}

}  // namespace

int ExitCodeOf(const absl::Status& status) {
  if (IsInterrupted(status)) return kExitInterrupted;
  const std::string reason = ReasonOf(status);
  if (reason == reasons::kUsage.name || reason == reasons::kFlagInvalid.name) return kExitUsage;
  // Said of a state, but meant of what was asked and of what is there.
  if (reason == reasons::kBudgetInfeasible.name) return kExitInvalid;
  if (reason == reasons::kNoServer.name) return kExitUnreachable;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return kExitDenied;
    case absl::StatusCode::kUnavailable:
      return kExitUnreachable;
    case absl::StatusCode::kDeadlineExceeded:
      return kExitTimeout;
    case absl::StatusCode::kResourceExhausted:
      return kExitQuota;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kFailedPrecondition:
      return kExitConflict;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kExitInvalid;
    case absl::StatusCode::kDataLoss:
      return kExitCorrupt;
    default:
      return kExitInternal;
  }
}

std::string ErrorText(absl::string_view what, const absl::Status& status,
                      absl::string_view advice) {
  return absl::StrCat("lwqctl: ", LogSafe(what), "\n  why: ", LogSafe(ReasonOf(status)), ": ",
                      Printable(status.message()),
                      "\n  do:  ", advice.empty() ? AdviceFor(status) : advice, "\n");
}

std::string ErrorJson(absl::string_view what, const absl::Status& status,
                      absl::string_view advice) {
  nlohmann::ordered_json error;
  error["what"] = std::string(what);
  error["reason"] = ReasonOf(status);
  error["message"] = std::string(status.message());
  error["advice"] = std::string(advice.empty() ? AdviceFor(status) : advice);
  error["exit_code"] = ExitCodeOf(status);
  for (const auto& [name, fact] : FactsOf(status)) error["facts"][name] = fact;
  nlohmann::ordered_json line;
  line["error"] = std::move(error);
  return absl::StrCat(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), "\n");
}

absl::Status StatusOfFailure(const v1::Failure& failure) {
  const bool known = failure.code() > 0 && failure.code() <= 16;
  const absl::StatusCode code =
      known ? static_cast<absl::StatusCode>(failure.code()) : absl::StatusCode::kInternal;
  std::string where;
  if (!failure.task().empty()) absl::StrAppend(&where, " (task ", failure.task());
  if (!failure.worker().empty()) {
    absl::StrAppend(&where, where.empty() ? " (" : ", ", "worker ", failure.worker());
  }
  if (!where.empty()) where += ")";
  return Failure(code, failure.reason().empty() ? "INTERNAL" : failure.reason(),
                 absl::StrCat(failure.message(), where));
}

absl::Status InterruptedError() { return Failure(reasons::kInterrupted, "stopped by Ctrl-C"); }

bool IsInterrupted(const absl::Status& status) {
  return ReasonOf(status) == reasons::kInterrupted.name;
}

}  // namespace lwq::client
