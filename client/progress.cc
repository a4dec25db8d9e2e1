#include "client/progress.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"
#include "client/size_text.h"

namespace lwq::client {
namespace {

constexpr int kBarCells = 20;

std::string Bar(int done, int total) {
  const int full =
      total > 0 ? static_cast<int>(int64_t{kBarCells} * std::min(done, total) / total) : 0;
  return absl::StrCat("[", std::string(static_cast<size_t>(full), '#'),
                      std::string(static_cast<size_t>(kBarCells - full), '.'), "]");
}

std::string PhaseLine(const v1::PhaseProgress& phase) {
  std::string line = absl::StrFormat("%-10s %s %3d/%-3d", PhaseName(phase.phase()),
                                     Bar(phase.tasks_done(), phase.tasks_total()),
                                     phase.tasks_done(), phase.tasks_total());
  if (phase.tasks_done() > 0) {
    absl::StrAppendFormat(&line, " %8s", FormatSeconds(phase.seconds()));
  }
  if (phase.tasks_cached() > 0) absl::StrAppend(&line, "  cached ", phase.tasks_cached());
  return line;
}

std::string TaskLine(const v1::TaskEvent& task) {
  std::string line = task.kind();
  if (task.layer() == -1) absl::StrAppend(&line, " lm_head");
  if (task.layer() == -3) absl::StrAppend(&line, " embedding");
  if (task.layer() >= 0) absl::StrAppend(&line, " layer ", task.layer());
  switch (task.state()) {
    case v1::TaskEvent::DONE:
      absl::StrAppend(&line, ": done in ", FormatSeconds(task.seconds()));
      break;
    case v1::TaskEvent::CACHED:
      absl::StrAppend(&line, ": cached");
      break;
    case v1::TaskEvent::RETRY:
      absl::StrAppend(&line, ": will run again");
      break;
    case v1::TaskEvent::FAILED:
      absl::StrAppend(&line, ": failed");
      break;
    default:
      return "";
  }
  if (!task.worker().empty()) absl::StrAppend(&line, " on ", task.worker());
  if (!task.detail().empty()) absl::StrAppend(&line, ": ", task.detail());
  return LogSafe(line);
}

// Not the unspecified value.
template <typename Enum>
bool IsKnown(Enum value) {
  return static_cast<int>(value) != 0;
}

}  // namespace

std::string PhaseName(v1::Phase phase) {
  return IsKnown(phase) ? absl::AsciiStrToLower(v1::Phase_Name(phase)) : "-";
}

std::string StateName(v1::Job::State state) {
  return IsKnown(state) ? v1::Job::State_Name(state) : "-";
}

void ProgressView::Take(const v1::Job& job) {
  if (job.generation() != generation_) {
    generation_ = job.generation();
    phases_.clear();
    progress_.Clear();
  }
  state_ = job.state();
  queue_detail_ = job.queue_detail();
  Take(job.progress());
}

void ProgressView::Take(const v1::Progress& progress) {
  const double fraction = std::max(progress.fraction(), progress_.fraction());
  if (progress.tasks_total() > 0) progress_ = progress;
  progress_.set_fraction(fraction);
  for (const v1::PhaseProgress& phase : progress.phases()) {
    v1::PhaseProgress& mine = phases_[phase.phase()];
    const int done = std::max(mine.tasks_done(), phase.tasks_done());
    mine = phase;
    mine.set_tasks_done(done);
  }
}

void ProgressView::Apply(const v1::JobEvent& event) {
  switch (event.event_case()) {
    case v1::JobEvent::kSnapshot:
      Take(event.snapshot());
      break;
    case v1::JobEvent::kState:
      Take(event.state().job());
      state_ = event.state().to();
      break;
    case v1::JobEvent::kProgress:
      Take(event.progress());
      break;
    case v1::JobEvent::kTask:
      if (event.task().state() == v1::TaskEvent::RETRY) trouble_ = TaskLine(event.task());
      if (event.task().state() == v1::TaskEvent::DONE) trouble_.clear();
      break;
    default:
      break;
  }
}

std::vector<std::string> ProgressView::Lines(int width) const {
  std::vector<std::string> lines;
  for (const auto& [phase, progress] : phases_) {
    if (progress.tasks_total() > 0) lines.push_back(PhaseLine(progress));
  }
  std::string whole = absl::StrFormat("%3.0f%%  %s", 100 * progress_.fraction(), StateName(state_));
  if (progress_.tasks_total() > 0) {
    absl::StrAppend(&whole, "  ", progress_.tasks_done(), "/", progress_.tasks_total(), " tasks");
  }
  if (!progress_.current().empty()) absl::StrAppend(&whole, "  ", LogSafe(progress_.current()));
  if (!queue_detail_.empty()) absl::StrAppend(&whole, "  ", LogSafe(queue_detail_));
  lines.push_back(whole);
  if (!trouble_.empty()) lines.push_back(trouble_);
  for (std::string& line : lines) {
    if (width > 4 && line.size() > static_cast<size_t>(width)) {
      line = absl::StrCat(line.substr(0, static_cast<size_t>(width) - 3), "...");
    }
  }
  return lines;
}

std::string ProgressView::EventLine(const v1::JobEvent& event) {
  switch (event.event_case()) {
    case v1::JobEvent::kSnapshot:
      return absl::StrCat(LogSafe(event.snapshot().name()), ": ",
                          StateName(event.snapshot().state()), ", ",
                          event.snapshot().progress().tasks_done(), " of ",
                          event.snapshot().progress().tasks_total(), " tasks done");
    case v1::JobEvent::kState:
      return absl::StrCat("job: ", StateName(event.state().from()), " -> ",
                          StateName(event.state().to()));
    case v1::JobEvent::kTask:
      return TaskLine(event.task());
    default:
      return "";
  }
}

}  // namespace lwq::client
