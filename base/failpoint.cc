#include "base/failpoint.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

namespace lwq {
namespace {

bool ParseAction(absl::string_view text, FailpointAction& action) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  for (const auto& [name, at] :
       {std::pair("crash", &action.crash_at), std::pair("segv", &action.segv_at)}) {
    if (parts.first != name) continue;
    if (text != name) return absl::SimpleAtoi(parts.second, at) && *at > 0;
    *at = 1;
    return true;
  }
  return parts.first == "delay" && absl::ParseDuration(parts.second, &action.delay);
}

}  // namespace

absl::StatusOr<std::map<std::string, FailpointAction>> ParseFailpoints(absl::string_view text) {
  std::map<std::string, FailpointAction> actions;
  for (absl::string_view one : absl::StrSplit(text, ';', absl::SkipEmpty())) {
    const std::pair<std::string, absl::string_view> parts =
        absl::StrSplit(one, absl::MaxSplits('=', 1));
    if (parts.first.empty() || !ParseAction(parts.second, actions[parts.first])) {
      return absl::InvalidArgumentError(absl::StrCat(
          "failpoint \"", one, "\": expected NAME=crash, crash:N, segv, segv:N or delay:DURATION"));
    }
  }
  return actions;
}

#ifndef NDEBUG
namespace {

struct Point {
  FailpointAction action;
  std::atomic<int> passed{0};
};

std::map<std::string, Point>& Points() {
  static auto& points = *[] {
    auto* made = new std::map<std::string, Point>;
    const char* text = std::getenv("LWQ_FAILPOINTS");
    const auto actions = ParseFailpoints(text == nullptr ? "" : text);
    if (!actions.ok()) {
      std::fprintf(stderr, "LWQ_FAILPOINTS: %s\n", std::string(actions.status().message()).c_str());
      ::_exit(78);
    }
    for (const auto& [name, action] : *actions) (*made)[name].action = action;
    return made;
  }();
  return points;
}

}  // namespace

void Failpoint(const char* name) {
  std::map<std::string, Point>& points = Points();
  if (points.empty()) return;
  const auto found = points.find(name);
  if (found == points.end()) return;
  Point& point = found->second;
  const int passed = ++point.passed;
  if (passed == point.action.crash_at) ::_exit(kFailpointExit);
  if (passed == point.action.segv_at) {
    ::signal(SIGSEGV, SIG_DFL);
    ::raise(SIGSEGV);
  }
  absl::SleepFor(point.action.delay);
}
#endif

}  // namespace lwq
