#include "client/progress.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"
#include "client/size_text.h"
#include "client/work_text.h"

namespace lwq::client {
namespace {

constexpr int kMostCells = 20, kFewestCells = 6;
// What a phase's line has besides its bar.
constexpr int kOtherColumns = 31;

absl::Time ToTime(const google::protobuf::Timestamp& t) {
  return absl::FromUnixSeconds(t.seconds()) + absl::Nanoseconds(t.nanos());
}

std::string Bar(double fraction, int cells) {
  const int full = std::clamp(static_cast<int>(cells * fraction + 1e-9), 0, cells);
  return absl::StrCat("[", std::string(static_cast<size_t>(full), '#'),
                      std::string(static_cast<size_t>(cells - full), '.'), "]");
}

double FractionOf(const v1::PhaseProgress& phase) {
  if (phase.tasks_done() == phase.tasks_total()) return 1;
  const double by_tasks = static_cast<double>(phase.tasks_done()) / phase.tasks_total();
  return phase.fraction() > 0 ? phase.fraction() : by_tasks;
}

// The bar gives way first where the terminal is narrow; `width` 0: it is not.
std::string PhaseLine(const v1::PhaseProgress& phase, int width) {
  const int cells =
      width > 0 ? std::clamp(width - kOtherColumns, kFewestCells, kMostCells) : kMostCells;
  std::string line =
      absl::StrFormat("%-10s %s %3d/%-3d", PhaseName(phase.phase()), Bar(FractionOf(phase), cells),
                      phase.tasks_done(), phase.tasks_total());
  if (phase.tasks_done() > 0) {
    absl::StrAppendFormat(&line, " %8s", FormatSeconds(phase.seconds()));
  }
  if (phase.tasks_cached() > 0) {
    const std::string cached = absl::StrCat("  cached ", phase.tasks_cached());
    if (width == 0 || line.size() + cached.size() <= static_cast<size_t>(width)) line += cached;
  }
  return line;
}

std::string TaskLine(const v1::TaskEvent& task) {
  std::string line = TaskName(task.kind(), task.layer());
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

bool HasFraction(v1::Job::State state) {
  return state != v1::Job::FAILED && state != v1::Job::CANCELLED;
}

std::string DoneText(const v1::Job& job) {
  const std::string tasks =
      absl::StrCat(job.progress().tasks_done(), "/", job.progress().tasks_total());
  if (!HasFraction(job.state())) return tasks;
  return absl::StrFormat("%.0f%% %s", 100 * job.progress().fraction(), tasks);
}

std::string ClockText(absl::Duration time) {
  const int64_t seconds = std::max<int64_t>(absl::ToInt64Seconds(time), 0);
  const int64_t minutes = seconds / 60;
  if (minutes < 60) return absl::StrFormat("%d:%02d", minutes, seconds % 60);
  return absl::StrFormat("%d:%02d:%02d", minutes / 60, minutes % 60, seconds % 60);
}

void ProgressView::Take(const v1::Job& job) {
  if (job.generation() != generation_) {
    generation_ = job.generation();
    phases_.clear();
    progress_.Clear();
    begun_.reset();
  }
  if (!job.name().empty()) name_ = job.name().substr(job.name().find('/') + 1);
  if (job.has_create_time() && generation_ == 0) begun_ = ToTime(job.create_time());
  if (job.has_start_time() && generation_ > 0) begun_ = ToTime(job.start_time());
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
  // What was in the way is said anew by the progress itself.
  if (progress.tasks_running() > 0 || !progress.current().empty()) queue_detail_.clear();
}

void ProgressView::Apply(const v1::JobEvent& event, absl::Time now) {
  if (event.has_time()) ahead_ = ToTime(event.time()) - now;
  switch (event.event_case()) {
    case v1::JobEvent::kSnapshot:
      Take(event.snapshot());
      told_ = now;
      break;
    case v1::JobEvent::kState:
      // The job as it was then; of the end nothing is left.
      Take(event.state().job());
      state_ = event.state().to();
      told_ = now;
      break;
    case v1::JobEvent::kProgress:
      Take(event.progress());
      told_ = now;
      break;
    case v1::JobEvent::kTask:
      if (event.task().state() == v1::TaskEvent::RETRY) trouble_ = TaskLine(event.task());
      if (event.task().state() == v1::TaskEvent::DONE) trouble_.clear();
      break;
    default:
      break;
  }
}

std::optional<absl::Duration> ProgressView::Elapsed(absl::Time now) const {
  if (!begun_) return std::nullopt;
  return now + ahead_ - *begun_;
}

std::optional<double> ProgressView::SecondsLeft(absl::Time now) const {
  if (state_ != v1::Job::RUNNING || !progress_.has_remaining_seconds()) return std::nullopt;
  return std::max(progress_.remaining_seconds() - absl::ToDoubleSeconds(now - told_), 0.0);
}

std::string ProgressView::StatusLine(absl::Time now) const {
  std::string line = absl::StrFormat("%3.0f%%", std::floor(100 * progress_.fraction()));
  if (const std::optional<absl::Duration> elapsed = Elapsed(now)) {
    absl::StrAppend(&line, "  ", ClockText(*elapsed), " elapsed");
  }
  if (const std::optional<double> left = SecondsLeft(now)) {
    absl::StrAppend(&line, ", ", FormatEstimate(*left), " left");
  }
  absl::StrAppend(&line, "  ", name_.empty() ? "" : LogSafe(name_) + " ", StateName(state_));
  if (progress_.tasks_total() > 0) {
    absl::StrAppend(&line, "  ", progress_.tasks_done(), "/", progress_.tasks_total(), " tasks");
  }
  return line;
}

// What runs now; where nothing does, why.
std::string ProgressView::RunningLine(absl::Time now) const {
  if (!queue_detail_.empty()) return LogSafe(queue_detail_);
  if (progress_.running().empty()) return LogSafe(progress_.current());
  v1::RunningTask first = progress_.running(0);
  first.set_seconds(first.seconds() + absl::ToDoubleSeconds(now - told_));
  std::string line = RunningText(first);
  if (progress_.running_size() > 1) {
    absl::StrAppend(&line, "; and ", progress_.running_size() - 1, " more");
  }
  return line;
}

std::vector<std::string> ProgressView::Lines(int width, absl::Time now) const {
  std::vector<std::string> lines;
  for (const auto& [phase, progress] : phases_) {
    if (progress.tasks_total() > 0) lines.push_back(PhaseLine(progress, width));
  }
  lines.push_back(StatusLine(now));
  if (const std::string running = RunningLine(now); !running.empty()) {
    lines.push_back(absl::StrCat("now: ", running));
  }
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
