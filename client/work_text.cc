#include "client/work_text.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
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
  return text;
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
