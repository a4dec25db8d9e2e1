// Points at which a test makes a process die or stand still, by its environment:
//   LWQ_FAILPOINTS="blob.before_rename=crash;commit.after=crash:3;complete.before_answer=delay:2s"
// crash:N is at the Nth time that the point is passed (1), delay at each; segv[:N] ends the process
// as a wild pointer does. With NDEBUG, which is how
// what users run is built, nothing of it is there.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lwq {

// How a process ends at a point: told apart from any other end.
inline constexpr int kFailpointExit = 85;

struct FailpointAction {
  int crash_at = 0;  // 0: not
  int segv_at = 0;
  absl::Duration delay = absl::ZeroDuration();
};
// What a text such as the above asks for, by point. INVALID_ARGUMENT.
absl::StatusOr<std::map<std::string, FailpointAction>> ParseFailpoints(absl::string_view text);

// Thread-safe. `name` is a literal, so that a test finds all of them in the sources.
#ifdef NDEBUG
inline void Failpoint(const char*) {}
#else
void Failpoint(const char* name);
#endif

}  // namespace lwq
