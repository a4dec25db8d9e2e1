#include "client/commands/print_or_watch.h"

#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/errors.h"
#include "client/results.h"

namespace lwq::client {
namespace {

// Sentences say for how long something has been so.
void ClearNumbers(std::string* sentence) {
  std::erase_if(*sentence, [](unsigned char c) { return absl::ascii_isdigit(c); });
}

void ClearTimesOfRunning(v1::RunningTask* task) {
  task->clear_seconds();
  ClearNumbers(task->mutable_waits_for());
}

}  // namespace

void ClearTimes(v1::Job* job) {
  v1::Progress* progress = job->mutable_progress();
  progress->clear_remaining_seconds();
  ClearNumbers(job->mutable_queue_detail());
  ClearNumbers(progress->mutable_current());
  for (v1::RunningTask& task : *progress->mutable_running()) ClearTimesOfRunning(&task);
  for (v1::PhaseProgress& phase : *progress->mutable_phases()) phase.clear_remaining_seconds();
}

void ClearTimes(v1::TaskStatus* task) {
  task->clear_running_seconds();
  ClearNumbers(task->mutable_detail());
}

void ClearTimes(v1::Worker* worker) {
  worker->clear_seen_time();
  for (v1::RunningTask& task : *worker->mutable_running()) ClearTimesOfRunning(&task);
}

absl::StatusOr<int> PrintOrWatch(const Invocation& invocation, Session* session,
                                 const std::function<absl::StatusOr<Shown>()>& look) {
  constexpr absl::Duration kInterval = absl::Seconds(2);
  const bool again = invocation.flags.Has("watch");
  const bool redraw = again && ::isatty(STDOUT_FILENO) == 1;
  bool first = true;
  Shown shown;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(Shown now, look());
    if (first || (redraw ? now.text != shown.text : now.without_times != shown.without_times)) {
      if (redraw) *invocation.out << "\x1b[H\x1b[2J";
      if (!redraw && !first) *invocation.out << "\n";
      *invocation.out << now.text << std::flush;
    }
    if (!again) return kExitOk;
    first = false;
    shown = std::move(now);
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
