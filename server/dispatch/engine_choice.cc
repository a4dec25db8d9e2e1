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

// Cheaper than to compare what EngineOf makes of them, and true of most pairs of workers.
bool SameKinds(const v1::RegisterWorkerRequest& a, const v1::RegisterWorkerRequest& b) {
  return a.numerics_class() == b.numerics_class() &&
         std::equal(a.kinds().begin(), a.kinds().end(), b.kinds().begin(), b.kinds().end(),
                    [](const v1::TaskKindVersion& x, const v1::TaskKindVersion& y) {
                      return x.kind() == y.kind() && x.version() == y.version();
                    });
}

struct Candidate {
  v1::EngineClass engine;
  int num_known = 0;
  double operations_per_second = 0;  // of those that are there
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
  Candidate* last = nullptr;                 // of the worker before
  const v1::RegisterWorkerRequest* last_worker = nullptr;
  for (const auto& [id, worker] : state.workers()) {
    if (last == nullptr || !SameKinds(*last_worker, worker.registration())) {
      const v1::EngineClass engine = EngineOf(worker.registration());
      last = &classes[CanonicalBytes(engine)];
      last->engine = engine;
    }
    last_worker = &worker.registration();
    Candidate& candidate = *last;
    ++candidate.num_known;
    if (state.IsLost(id, steady_us) || worker.cordoned()) continue;
    candidate.there.push_back(&worker.registration());
    candidate.operations_per_second += worker.registration().operations_per_second();
  }
  EngineChoice choice;
  using Value = std::tuple<bool, double, size_t, int>;
  Value best = {false, 0, 0, 0};
  for (const auto& [bytes, candidate] : classes) {
    const bool can_run = candidate.CanRunAll(needs);
    const Value value = {can_run, candidate.operations_per_second, candidate.there.size(),
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
