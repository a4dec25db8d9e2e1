// The budget rule of layer-wise quantization by importance (Dumitru et al., arXiv 2406.17415):
// layers in order of importance take the high width while the budget lasts, the others the low one.
// For N layers of one size that is k = floor(N (M - M_low) / (M_high - M_low)) layers at the high
// width.
//
// Of more than two rungs it uses the neighbours between which the budget lies: the largest that
// fits everywhere and the next. A layer that does not fit is left low and the walk goes on, so
// that unequal layers use what is left; equal ones all stop together, as in the rule. What is
// outside the layers has no place in a ranking of them and is promoted last.
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

// "; lm_head is 4-bit in groups of 128": the rungs of the units outside the layers.
std::string OutsideText(const AllocationProblem& problem, const Plan& plan, const Plan& high,
                        size_t low) {
  std::string text;
  for (size_t u = 0; u < plan.size(); ++u) {
    const AllocationUnit& unit = problem.model->units[u];
    if (unit.place.in_layer() || !problem.menu.units[u].Quantizable()) continue;
    const size_t rung = plan[u] == high[u] ? low + 1 : low;
    absl::StrAppend(&text, "; ", unit.name, " is ", problem.menu.rungs[rung]);
  }
  return text;
}

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
  for (size_t u = 0; u < model.units.size(); ++u) {
    const Place place = model.units[u].place;
    if (!place.in_layer() && problem.menu.units[u].Quantizable()) order.push_back(place);
  }

  size_t promoted = 0;
  for (const Place place : order) {
    Plan candidate = allocation.plan;
    SetUnits(model, place, high, candidate);
    if (MeasurePlan(problem, candidate) > allowed) continue;
    allocation.plan = std::move(candidate);
    if (place.in_layer()) ++promoted;
  }
  allocation.explanation =
      absl::StrCat(promoted, " of ", num_layers, " layers are ", rungs[low + 1],
                   ", the most important first, and the others ", rungs[low],
                   OutsideText(problem, allocation.plan, high, low), ".");
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
