#include "server/dispatch/progress.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "records/plan_records.h"
#include "server/dispatch/job_graph.h"
#include "server/dispatch/task_wait.h"
#include "server/dispatch/work_estimate.h"

namespace lwq {

void UpdateProgress(const Draft& draft, v1::JobRecord& job) {
  v1::Progress& progress = *job.mutable_job()->mutable_progress();
  const std::set<std::string> cached(job.cached().begin(), job.cached().end());
  std::map<int, v1::PhaseProgress> phases;
  int done = 0, total = 0, running = 0;
  int phase = v1::COMMIT;
  for (const std::string& key : job.tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr) continue;
    v1::PhaseProgress& p = phases[task->phase()];
    p.set_tasks_total(p.tasks_total() + 1);
    ++total;
    p.set_forecast_bytes(std::max(p.forecast_bytes(), task->needs().memory_bytes()));
    p.set_peak_bytes(std::max(p.peak_bytes(), task->output().peak_anonymous_bytes()));
    if (task->state() == v1::TaskRecord::DONE) {
      ++done;
      p.set_tasks_done(p.tasks_done() + 1);
      if (cached.count(key) > 0) {
        p.set_tasks_cached(p.tasks_cached() + 1);
      } else {
        p.set_seconds(p.seconds() + task->output().seconds());
      }
      continue;
    }
    phase = std::min<int>(phase, task->phase());
    if (task->state() == v1::TaskRecord::LEASED) ++running;
  }
  if (job.plan_state() != v1::JobRecord::NO_PLAN) {
    const bool planned = job.plan_state() == v1::JobRecord::PLANNED;
    v1::PhaseProgress& p = phases[v1::PLAN];
    p.set_tasks_total(p.tasks_total() + 1);
    p.set_tasks_done(p.tasks_done() + (planned ? 1 : 0));
    ++total;
    done += planned ? 1 : 0;
    if (!planned) phase = std::min<int>(phase, v1::PLAN);
    if (job.plan_state() == v1::JobRecord::RUNNING) ++running;
  }
  progress.clear_phases();
  for (auto& [number, p] : phases) {
    p.set_phase(static_cast<v1::Phase>(number));
    *progress.add_phases() = p;
  }
  progress.set_tasks_total(total);
  progress.set_tasks_done(done);
  progress.set_tasks_cached(static_cast<int32_t>(cached.size()));
  progress.set_tasks_running(running);
  const double all = std::max(1, total + job.expected_tasks());
  const double fraction = CountOperations(draft, job).fraction().value_or(done / all);
  progress.set_fraction(std::max(progress.fraction(), fraction));
  job.mutable_job()->set_phase(static_cast<v1::Phase>(phase));
  const bool waits = running == 0 && !IsTerminal(job.job().state());
  job.mutable_job()->set_queue_detail(waits ? WhyJobWaits(draft, job) : "");
}

v1::Job WithoutItems(const v1::Job& job) {
  v1::Job copy = job;
  for (v1::EvaluationResult& result : *copy.mutable_evaluations()) {
    if (result.has_choice()) result.mutable_choice()->clear_items();
  }
  // 80 to 120 bytes of each linear: of the largest mixtures of experts more than a message takes.
  constexpr size_t kRoom = size_t{3} << 20;
  if (copy.ByteSizeLong() > kRoom && copy.layers_size() > 0) {
    copy.clear_layers();
    copy.add_warnings("what became of each linear is too much for one answer; left out");
  }
  return copy;
}

std::string CurrentWork(const DispatchState& state, const v1::JobRecord& job) {
  for (const std::string& key : job.tasks()) {
    auto task = state.tasks().find(key);
    if (task == state.tasks().end() || task->second.state() != v1::TaskRecord::LEASED) continue;
    auto lease = state.leases().find(key);
    if (lease != state.leases().end() && !lease->second.current.empty()) {
      return absl::StrCat(task->second.kind(), " ", lease->second.current);
    }
    if (task->second.layer() == kNoLayer) return task->second.kind();
    if (task->second.layer() == RecordedLayer(Place::Embedding())) {
      return absl::StrCat(task->second.kind(), " embedding");
    }
    if (task->second.layer() < 0) return absl::StrCat(task->second.kind(), " lm_head");
    return absl::StrCat(task->second.kind(), " layer ", task->second.layer());
  }
  return "";
}

}  // namespace lwq
