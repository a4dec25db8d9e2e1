#include "client/event_text.h"

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "client/progress.h"
#include "client/size_text.h"
#include "client/work_text.h"

namespace lwq::client {
namespace {

constexpr size_t kNameLength = 12;

std::string TaskText(const v1::TaskEvent& task) {
  std::string what;
  switch (task.state()) {
    case v1::TaskEvent::LEASED:
      what = "begins";
      break;
    case v1::TaskEvent::DONE:
      what = absl::StrCat("done in ", FormatSeconds(task.seconds()));
      break;
    case v1::TaskEvent::CACHED:
      what = absl::StrCat("from the cache, saves ", FormatSeconds(task.seconds()));
      break;
    case v1::TaskEvent::RETRY:
      what = "will run again";
      break;
    case v1::TaskEvent::FAILED:
      what = "failed";
      break;
    default:
      what = "-";
  }
  if (!task.worker().empty()) absl::StrAppend(&what, " on ", LogSafe(task.worker()));
  if (!task.detail().empty()) absl::StrAppend(&what, ": ", LogSafe(task.detail()));
  return absl::StrCat(TaskName(task.kind(), task.layer()), "  ", what, "  (task ",
                      LogSafe(task.task()).substr(0, kNameLength), ")");
}

std::string StateText(const v1::JobStateChange& change) {
  std::string text =
      absl::StrCat("job  ", StateName(change.from()), " -> ", StateName(change.to()));
  if (change.to() == v1::Job::FAILED) {
    absl::StrAppend(&text, ": ", LogSafe(change.job().failure().reason()), ": ",
                    LogSafe(change.job().failure().message()));
  }
  if (change.to() == v1::Job::SUCCEEDED && !change.job().artifact().empty()) {
    absl::StrAppend(&text, ": ", LogSafe(change.job().artifact()));
  }
  return text;
}

}  // namespace

std::string TimeText(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone());
}

std::string EventText(const v1::JobEvent& event) {
  if (event.has_task()) {
    return absl::StrCat(TimeText(absl::FromUnixSeconds(event.time().seconds())), "  ",
                        TaskText(event.task()));
  }
  if (event.has_state()) {
    return absl::StrCat(TimeText(absl::FromUnixSeconds(event.time().seconds())), "  ",
                        StateText(event.state()));
  }
  return "";
}

}  // namespace lwq::client
