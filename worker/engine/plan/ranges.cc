// Partial quantization: one run of neighbouring layers at the smaller of two formats, all others at
// the larger, as people do by hand ("the last third at 4 bits"). The run is the shortest with which
// the whole fits, and of that length the one whose layers matter least.
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

// `high` with the layers [first, first + count) as in `low`.
Plan WithRun(const ModelInventory& model, const Plan& low, const Plan& high, int first, int count) {
  Plan plan = high;
  for (size_t u = 0; u < model.units.size(); ++u) {
    const Place place = model.units[u].place;
    if (place.in_layer() && place.layer >= first && place.layer < first + count) plan[u] = low[u];
  }
  return plan;
}

// How far down the order of importance each layer stands: more is less important.
std::vector<int> RanksFromTheTop(const AllocationProblem& problem) {
  const std::vector<int> order = RankLayers(problem);
  std::vector<int> rank(order.size());
  for (size_t r = 0; r < order.size(); ++r)
    rank[static_cast<size_t>(order[r])] = static_cast<int>(r);
  return rank;
}

absl::StatusOr<Allocation> AllocateRanges(const AllocationProblem& problem) {
  const ModelInventory& model = *problem.model;
  const std::vector<std::string>& rungs = problem.menu.rungs;
  const int64_t allowed = AllowedBytes(problem);
  size_t low = rungs.size() - 1;
  while (low > 0 && MeasurePlan(problem, PlanAtRung(problem, low)) > allowed) --low;
  const Plan low_plan = PlanAtRung(problem, low);
  // All layers at one format, or a head that alone would not fit at the larger: nothing to choose.
  if (low + 1 == rungs.size() || MeasurePlan(problem, low_plan) > allowed) {
    return AllocatorDefs::two_level.allocate(problem);
  }
  const Plan high_plan = PlanAtRung(problem, low + 1);
  const std::vector<int> rank = RanksFromTheTop(problem);
  Allocation allocation;
  allocation.plan = low_plan;
  // All layers at the smaller format still leave the head at the larger; else all is small.
  int best_first = 0, best_count = model.num_layers + 1;
  for (int count = 0; count < best_count; ++count) {
    int64_t best_rank_sum = -1;
    for (int first = 0; first + count <= model.num_layers; ++first) {
      int64_t rank_sum = 0;
      for (int l = first; l < first + count; ++l) rank_sum += rank[static_cast<size_t>(l)];
      if (rank_sum <= best_rank_sum) continue;
      Plan plan = WithRun(model, low_plan, high_plan, first, count);
      if (MeasurePlan(problem, plan) > allowed) continue;
      best_rank_sum = rank_sum;
      best_first = first;
      allocation.plan = std::move(plan);
    }
    if (best_rank_sum >= 0) best_count = count;  // the shortest: ends the search
  }
  allocation.explanation =
      best_count > model.num_layers ? absl::StrCat("Every unit is ", rungs[low], ".")
      : best_count == 0
          ? absl::StrCat("Every layer is ", rungs[low + 1], ".")
          : absl::StrCat("Layers ", best_first, " to ", best_first + best_count - 1, " are ",
                         rungs[low], ", the run that matters least, and the others ",
                         rungs[low + 1], ".");
  MeasureAllocation(problem, allocation);
  return allocation;
}

}  // namespace

constinit const AllocatorDef AllocatorDefs::ranges = {
    .name = "ranges",
    .help = "partial quantization: one run of neighbouring layers at the smaller of two formats",
    .needs_cost = false,
    .needs_layer_score = true,
    .allocate = &AllocateRanges,
};

}  // namespace lwq
