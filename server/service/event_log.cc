#include "server/service/event_log.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/log.h"

namespace lwq {
namespace {

constexpr size_t kNameLength = 12;

void AddTask(const v1::TaskEvent& task, std::string& line) {
  absl::StrAppend(&line, " task=", task.task().substr(0, kNameLength), " kind=", task.kind());
  if (task.layer() >= 0) absl::StrAppend(&line, " layer=", task.layer());
  absl::StrAppend(&line, " ", absl::AsciiStrToLower(v1::TaskEvent::State_Name(task.state())));
  if (!task.worker().empty()) absl::StrAppend(&line, " worker=", task.worker());
  if (task.state() == v1::TaskEvent::DONE) {
    absl::StrAppendFormat(&line, " seconds=%.2f", task.seconds());
  }
  if (!task.detail().empty()) absl::StrAppend(&line, ": ", task.detail());
}

void AddState(const v1::JobStateChange& change, std::string& line) {
  absl::StrAppend(&line, " ", v1::Job::State_Name(change.from()), " -> ",
                  v1::Job::State_Name(change.to()));
  const v1::Job& job = change.job();
  if (change.to() == v1::Job::SUCCEEDED && !job.artifact().empty()) {
    absl::StrAppend(&line, " ", job.artifact());
  }
  if (change.to() == v1::Job::FAILED) {
    absl::StrAppend(&line, " ", job.failure().reason(), ": ", job.failure().message());
  }
}

// What has gone wrong is a warning; what was handed out or spared is for who looks closely.
spdlog::level::level_enum LevelOf(const v1::JobEvent& event) {
  if (event.has_state()) {
    return event.state().to() == v1::Job::FAILED ? spdlog::level::warn : spdlog::level::info;
  }
  switch (event.task().state()) {
    case v1::TaskEvent::RETRY:
    case v1::TaskEvent::FAILED:
      return spdlog::level::warn;
    case v1::TaskEvent::CACHED:
      return spdlog::level::debug;
    default:
      return spdlog::level::info;
  }
}

}  // namespace

std::string EventLogLine(const std::string& job, const v1::JobEvent& event) {
  if (!event.has_task() && !event.has_state()) return "";
  std::string line = absl::StrCat("job=", absl::StripPrefix(job, "jobs/"));
  if (event.has_task()) {
    AddTask(event.task(), line);
  } else {
    AddState(event.state(), line);
  }
  return LogSafe(line);
}

void LogEvent(const std::string& job, const v1::JobEvent& event) {
  const spdlog::level::level_enum level = LevelOf(event);
  if (!spdlog::should_log(level)) return;
  if (const std::string line = EventLogLine(job, event); !line.empty())
    spdlog::log(level, "{}", line);
}

}  // namespace lwq
