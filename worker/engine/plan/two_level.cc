// The budget rule of layer-wise quantization by importance (Dumitru et al., arXiv 2406.17415):
// layers in order of importance take the high width while the budget lasts, the others the low one.
// For N layers of one size that is k = floor(N (M - M_low) / (M_high - M_low)) layers at the high
// width.
//
// Of more than two rungs it uses the neighbours between which the budget lies: the largest that
// fits everywhere and the next. A layer that does not fit is left low and the walk goes on, so
// that unequal layers use what is left; equal ones all stop together, as in the rule. lm_head has
// no place in a ranking of layers and is promoted last.
#include "absl/strings/str_cat.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

absl::StatusOr<Allocation> AllocateTwoLevel(const AllocationProblem& problem) {
  const ModelInventory& model = *problem.model;
  const int64_t allowed = AllowedBytes(problem);
  const std::vector<std::string>& rungs = problem.menu.rungs;
  size_t low = rungs.size() - 1;
  Allocation allocation;
  for (;; --low) {
    allocation.plan = PlanAtRung(problem, low);
    if (low == 0 || MeasurePlan(problem, allocation.plan) <= allowed) break;
  }
  if (MeasurePlan(problem, allocation.plan) > allowed) {  // units' smallest formats may be smaller
    allocation.plan = SmallestPlan(problem);
    allocation.explanation = "Every layer is at its smallest formats.";
    MeasureAllocation(problem, allocation);
    return allocation;
  }
  if (low + 1 == rungs.size()) {
    allocation.explanation =
        absl::StrCat("Every layer is ", rungs[low], ", the largest there is: the budget holds it.");
    MeasureAllocation(problem, allocation);
    return allocation;
  }
  const Plan high = PlanAtRung(problem, low + 1);
  std::vector<Place> order;
  for (int layer : RankLayers(problem)) order.push_back(Place::Layer(layer));
  const size_t num_layers = order.size();
  bool has_head = false;
  for (size_t u = 0; u < model.units.size(); ++u) {
    const bool in_head = model.units[u].place == Place::Head();
    has_head = has_head || (in_head && problem.menu.units[u].Quantizable());
  }
  if (has_head) order.push_back(Place::Head());

  size_t promoted = 0;
  bool head_promoted = false;
  for (const Place place : order) {
    Plan candidate = allocation.plan;
    SetUnits(model, place, high, candidate);
    if (MeasurePlan(problem, candidate) > allowed) continue;
    allocation.plan = std::move(candidate);
    if (place == Place::Head()) {
      head_promoted = true;
    } else {
      ++promoted;
    }
  }
  allocation.explanation = absl::StrCat(
      promoted, " of ", num_layers, " layers are ", rungs[low + 1],
      ", the most important first, and the others ", rungs[low],
      has_head ? absl::StrCat("; lm_head is ", rungs[head_promoted ? low + 1 : low]) : "", ".");
  MeasureAllocation(problem, allocation);
  return allocation;
}

}  // namespace

constinit const AllocatorDef AllocatorDefs::two_level = {
    .name = "two-level",
    .help = "the most important layers at one format, the others at the next smaller",
    .needs_cost = false,
    .needs_layer_score = true,
    .allocate = &AllocateTwoLevel,
};

}  // namespace lwq
