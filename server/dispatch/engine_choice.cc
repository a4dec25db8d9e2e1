#include "server/dispatch/engine_choice.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "records/canonical.h"

namespace lwq {
namespace {

TaskNeed OfAnyClass(TaskNeed need) {
  need.numerics_class.clear();
  need.engine_version = 0;
  return need;
}

struct Candidate {
  v1::EngineClass engine;
  int num_known = 0;
  std::vector<const v1::RegisterWorkerRequest*> there;

  bool CanRunAll(const std::set<TaskNeed>& needs) const {
    return !there.empty() && std::all_of(needs.begin(), needs.end(), [&](const TaskNeed& need) {
      return std::any_of(there.begin(), there.end(), [&](const v1::RegisterWorkerRequest* worker) {
        return CanRun(*worker, OfAnyClass(need));
      });
    });
  }
};

}  // namespace

EngineChoice ChooseEngine(const DispatchState& state, int64_t steady_us,
                          const std::set<TaskNeed>& needs) {
  std::map<std::string, Candidate> classes;  // by what they are
  for (const auto& [id, worker] : state.workers()) {
    const v1::EngineClass engine = EngineOf(worker.registration());
    Candidate& candidate = classes[CanonicalBytes(engine)];
    candidate.engine = engine;
    ++candidate.num_known;
    if (state.IsLost(id, steady_us) || worker.cordoned()) continue;
    candidate.there.push_back(&worker.registration());
  }
  EngineChoice choice;
  std::tuple<bool, size_t, int> best = {false, 0, 0};
  for (const auto& [bytes, candidate] : classes) {
    const bool can_run = candidate.CanRunAll(needs);
    const std::tuple<bool, size_t, int> value = {can_run, candidate.there.size(),
                                                 candidate.num_known};
    if (value <= best) continue;
    best = value;
    choice = {candidate.engine, can_run};
  }
  return choice;
}

std::set<TaskNeed> NeedsOf(const DispatchState& state, const v1::JobRecord& job) {
  std::set<TaskNeed> needs;
  for (const std::string& key : job.tasks()) {
    auto task = state.tasks().find(key);
    if (task != state.tasks().end()) needs.insert(OfAnyClass(NeedOf(task->second)));
  }
  return needs;
}

}  // namespace lwq
