// Errors for people: three lines and an exit code.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/lwq/v1/failure.pb.h"

namespace lwq::client {

// Exit codes of lwqctl. Scripts depend on them; never renumber.
enum ExitCode {
  kExitOk = 0,
  kExitJobFailed = 1,
  kExitUsage = 2,
  kExitNotFound = 3,
  kExitDenied = 4,
  kExitUnreachable = 5,
  kExitTimeout = 6,
  kExitQuota = 7,
  kExitConflict = 8,
  kExitInvalid = 9,
  kExitCorrupt = 10,
  kExitInternal = 70,
  kExitInterrupted = 130,
};

int ExitCodeOf(const absl::Status& status);

// Three lines: what went wrong, why (the reason and the message), what to do. Control characters
// are escaped, except the line breaks of a log's end that a message may carry.
// `advice`, where not empty, goes before what the reason has.
std::string ErrorText(absl::string_view what, const absl::Status& status,
                      absl::string_view advice = "");
// The same for programs: one line of JSON with "error": {"what", "reason", "message", "advice",
// "exit_code"}.
std::string ErrorJson(absl::string_view what, const absl::Status& status,
                      absl::string_view advice = "");

// A job's or model's stored failure as a status with its reason.
absl::Status StatusOfFailure(const v1::Failure& failure);

// CANCELLED INTERRUPTED: the user pressed Ctrl-C.
absl::Status InterruptedError();
bool IsInterrupted(const absl::Status& status);

}  // namespace lwq::client
