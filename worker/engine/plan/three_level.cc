// Three formats (arXiv 2406.17415, appendix A.1): every layer starts at one; the most important go
// up to the next larger, and for each the least important go down to the next smaller until the
// whole fits again. At equal layers and widths of 8, 4 and 2 bits that is two down for each one up,
// as in the paper. It is there to be compared with: the paper finds it worse than its start nearly
// always.
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

absl::StatusOr<Allocation> AllocateThreeLevel(const AllocationProblem& problem) {
  const ModelInventory& model = *problem.model;
  const std::vector<std::string>& rungs = problem.menu.rungs;
  const int64_t allowed = AllowedBytes(problem);
  size_t middle = rungs.size() - 1;
  while (middle > 0 && MeasurePlan(problem, PlanAtRung(problem, middle)) > allowed) --middle;
  if (middle == 0 || middle + 1 == rungs.size()) return AllocatorDefs::two_level.allocate(problem);

  const Plan low = PlanAtRung(problem, middle - 1), high = PlanAtRung(problem, middle + 1);
  Allocation allocation;
  allocation.plan = PlanAtRung(problem, middle);
  const std::vector<int> order = RankLayers(problem);
  size_t raised = 0, lowered = 0;
  while (raised + lowered < order.size()) {
    Plan candidate = allocation.plan;
    SetUnits(model, Place::Layer(order[raised]), high, candidate);
    size_t next_lowered = lowered;
    while (raised + 1 + next_lowered < order.size() && MeasurePlan(problem, candidate) > allowed) {
      SetUnits(model, Place::Layer(order[order.size() - 1 - next_lowered]), low, candidate);
      ++next_lowered;
    }
    if (MeasurePlan(problem, candidate) > allowed) break;
    allocation.plan = std::move(candidate);
    ++raised;
    lowered = next_lowered;
  }
  allocation.explanation =
      absl::StrCat(raised, " of ", order.size(), " layers are ", rungs[middle + 1],
                   ", the most important first, ", lowered, " are ", rungs[middle - 1],
                   ", the least important, and the others ", rungs[middle], ".");
  MeasureAllocation(problem, allocation);
  return allocation;
}

}  // namespace

constinit const AllocatorDef AllocatorDefs::three_level = {
    .name = "three-level",
    .help = "the most important layers one format up, the least important one down, for comparison",
    .needs_cost = false,
    .needs_layer_score = true,
    .allocate = &AllocateThreeLevel,
};

}  // namespace lwq
