#include "client/errors.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/failure.h"
#include "base/log.h"

namespace lwq::client {
namespace {

struct Advice {
  absl::string_view reason;
  absl::string_view text;
};

// What a person can do, by reason.
constexpr std::array<Advice, 19> kAdvice = {{
    {"BUDGET_INFEASIBLE", "give the budget that the line above names, or more, or smaller --bits"},
    {"BUDGET_INVALID", "see: lwqctl help quantize"},
    {"EMBEDDED_NOT_READY", "read the logs named above, then run the same command again"},
    {"EMBEDDED_STOPPED", "mend what the log says and run the same command again"},
    {"FILE_NOT_FOUND", "check the path"},
    {"FLAG_INVALID", "see: lwqctl help"},
    {"INTERRUPTED", "run the same command again: it goes on where it was"},
    {"MEMORY_INFEASIBLE", "give a larger --memory, or run on a machine with more"},
    {"MODEL_IN_USE", "wait for its jobs or cancel them: lwqctl jobs --model MODEL"},
    {"MODEL_NOT_READY", "wait until it is ACTIVE: lwqctl model show MODEL"},
    {"NO_SERVER", "give --server ADDRESS or set LWQ_SERVER, or start one: lwqctl up"},
    {"NOT_RUNNING", "nothing needs to be done; lwqctl up starts them"},
    {"OUTPUT_EXISTS", "give another --out, or remove it first"},
    {"PROGRAM_NOT_FOUND", "keep lwqctl, lwq-server and lwq-worker in one folder"},
    {"STATE_CONFLICT", "see how the job stands: lwqctl show JOB"},
    {"STORAGE_FULL", "free disk space where the data directory lies and try again"},
    {"TENSOR_MISSING", "complete the model's directory: a file is missing or is of another model"},
    {"TOKENIZER_MISSING", "put the model's tokenizer.json or tokenizer.model beside its weights"},
    {"USAGE", "see: lwqctl help"},
}};

absl::string_view AdviceFor(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  for (const Advice& advice : kAdvice) {
    if (advice.reason == reason) return advice.text;
  }
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return "check that the server runs and that --server names it, then try again";
    case absl::StatusCode::kDeadlineExceeded:
      return "try again, or give a larger --timeout";
    case absl::StatusCode::kInvalidArgument:
      return "correct what the line above names and run the command again";
    case absl::StatusCode::kNotFound:
      return "check the name; `list` shows what there is";
    case absl::StatusCode::kDataLoss:
      return "the file named above is damaged: get it anew from where it came";
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return "this is a fault of lwq: please report it with the lines above";
    default:
      return "correct what the line above names and try again";
  }
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
  if (ReasonOf(status) == "USAGE" || ReasonOf(status) == "FLAG_INVALID") return kExitUsage;
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

std::string ErrorText(absl::string_view what, const absl::Status& status) {
  return absl::StrCat("lwqctl: ", LogSafe(what), "\n  why: ", LogSafe(ReasonOf(status)), ": ",
                      Printable(status.message()), "\n  do:  ", AdviceFor(status), "\n");
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

absl::Status InterruptedError() {
  return Failure(absl::StatusCode::kCancelled, "INTERRUPTED", "stopped by Ctrl-C");
}

bool IsInterrupted(const absl::Status& status) { return ReasonOf(status) == "INTERRUPTED"; }

}  // namespace lwq::client
