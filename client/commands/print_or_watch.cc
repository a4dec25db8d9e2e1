#include "client/commands/print_or_watch.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/errors.h"
#include "client/results.h"

namespace lwq::client {

absl::StatusOr<int> PrintOrWatch(const Invocation& invocation, Session* session,
                                 const std::function<absl::StatusOr<std::string>()>& text) {
  constexpr absl::Duration kInterval = absl::Seconds(2);
  const bool again = invocation.flags.Has("watch");
  const bool redraw = again && ::isatty(STDOUT_FILENO) == 1;
  std::string shown;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const std::string now, text());
    if (now != shown) {
      if (redraw) *invocation.out << "\x1b[H\x1b[2J";
      if (!redraw && !shown.empty()) *invocation.out << "\n";
      *invocation.out << now << std::flush;
    }
    if (!again) return kExitOk;
    shown = now;
    const absl::Time next = absl::Now() + kInterval;
    while (absl::Now() < next) {
      if (absl::Status go_on = session->MayGoOn(); !go_on.ok()) {
        return IsInterrupted(go_on) ? absl::StatusOr<int>(kExitOk) : go_on;
      }
      absl::SleepFor(absl::Milliseconds(100));
    }
  }
}

absl::StatusOr<std::string> JsonText(const google::protobuf::Message& message) {
  LWQ_ASSIGN_OR_RETURN(const std::string json, ToJson(message));
  return absl::StrCat(json, "\n");
}

}  // namespace lwq::client
