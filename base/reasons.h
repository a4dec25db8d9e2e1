// The reasons that failures may have (base/failure.h), as constants, each with its line in
// base/failure.def: canonical code, who can mend it, whether a task runs again, and what a person
// can do. What decides by a reason asks its line and keeps no table of its own.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/failure.h"

namespace lwq {

// Whether a task that failed runs again.
struct RetryRule {
  int attempts = 0;  // further ones
  // Whether each is an attempt of the task, which has few. Those that are not (the task did nothing
  // wrong) wait longer each time.
  bool counts = true;
  // An input was lost: what made it runs again first.
  bool remakes_inputs = false;
};

struct Reason {
  absl::string_view name;  // UPPER_SNAKE
  absl::StatusCode code;
  Blame blame;
  RetryRule retry;
  absl::string_view help;  // what a person can do, in one line
};

namespace retry {
inline constexpr RetryRule kNoRetry;
inline constexpr RetryRule Again(int attempts) { return {.attempts = attempts}; }
// For what passes by itself: about five minutes, or a quarter of one.
inline constexpr RetryRule kTransient = {.attempts = 10, .counts = false};
inline constexpr RetryRule kBriefly = {.attempts = 4, .counts = false};
inline constexpr RetryRule kRemakeInputs = {.counts = false, .remakes_inputs = true};
}  // namespace retry

namespace reasons {
#define LWQ_REASON(constant, name, code, blame, rule, help)                                     \
  inline constexpr Reason constant = {#name, absl::StatusCode::code, Blame::blame, retry::rule, \
                                      help};
#include "base/failure.def"
#undef LWQ_REASON
}  // namespace reasons

// The failure of this reason. The message says what was being done, on what, expected against
// found.
absl::Status Failure(const Reason& reason, absl::string_view message);

bool HasReason(const absl::Status& status, const Reason& reason);

// The line of base/failure.def; null when there is none.
const Reason* FindReason(absl::string_view name);
absl::Span<const Reason* const> AllReasons();
// The line of a failure: of its reason or, for one that this program does not know, of its code.
const Reason& ReasonLine(absl::string_view name, absl::StatusCode code);

}  // namespace lwq
