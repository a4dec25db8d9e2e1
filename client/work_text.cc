#include "client/work_text.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "client/progress.h"
#include "client/size_text.h"

namespace lwq::client {

std::string TaskName(absl::string_view kind, int32_t layer) {
  std::string name = LogSafe(kind);
  if (layer == -1) absl::StrAppend(&name, " lm_head");
  if (layer == -3) absl::StrAppend(&name, " embedding");
  if (layer >= 0) absl::StrAppend(&name, " layer ", layer);
  return name;
}

std::string RunningText(const v1::RunningTask& task) {
  std::string text = absl::StrCat(TaskName(task.kind(), task.layer()), " on ",
                                  LogSafe(task.worker()), " for ", FormatSeconds(task.seconds()));
  if (task.fraction() > 0) absl::StrAppendFormat(&text, ", %.0f%%", 100 * task.fraction());
  if (!task.waits_for().empty()) absl::StrAppend(&text, ": ", LogSafe(task.waits_for()));
  return text;
}

std::string WorkerStateText(const v1::Worker& worker) {
  std::string text = v1::Worker::State_Name(worker.state());
  const bool silent = worker.state() == v1::Worker::LOST || worker.state() == v1::Worker::SILENT;
  if (silent && worker.has_seen_time()) {
    const absl::Duration since = absl::Now() - absl::FromUnixSeconds(worker.seen_time().seconds());
    absl::StrAppend(&text, " ", FormatSeconds(std::max(0.0, absl::ToDoubleSeconds(since))));
  }
  if (worker.cordoned()) absl::StrAppend(&text, ", cordoned");
  return text;
}

std::vector<v1::RunningTask> Standing::Take(const v1::Progress& progress) {
  std::vector<v1::RunningTask> begun;
  std::set<std::string> now;
  for (const v1::RunningTask& task : progress.running()) {
    if (task.waits_for().empty()) continue;
    now.insert(task.task());
    if (known_.count(task.task()) == 0) begun.push_back(task);
  }
  known_ = std::move(now);
  return begun;
}

std::string ForecastText(const v1::WorkForecast& work) {
  if (work.operations() <= 0) return "";
  if (!work.has_seconds()) return "not known: no worker is there whose speed is known";
  std::vector<std::string> phases;
  for (const v1::PhaseWork& phase : work.phases()) {
    if (phase.seconds() < 0.05) continue;
    phases.push_back(absl::StrCat(PhaseName(phase.phase()), " ", FormatSeconds(phase.seconds())));
  }
  return absl::StrCat(FormatEstimate(work.seconds()), ": ", absl::StrJoin(phases, ", "));
}

std::string OperationsText(const v1::WorkForecast& work) {
  std::vector<std::string> phases;
  for (const v1::PhaseWork& phase : work.phases()) {
    phases.push_back(absl::StrFormat("%s %.2g", PhaseName(phase.phase()), phase.operations()));
  }
  return absl::StrFormat("%.2g multiplications: %s", work.operations(),
                         absl::StrJoin(phases, ", "));
}

}  // namespace lwq::client
