// One format for every unit: the baseline of every mixture.
#include "absl/strings/str_cat.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

absl::StatusOr<Allocation> AllocateUniform(const AllocationProblem& problem) {
  const int64_t allowed = AllowedBytes(problem);
  const std::vector<std::string>& rungs = problem.menu.rungs;
  Allocation allocation;
  std::string wider = "there is no larger one";
  for (size_t r = rungs.size(); r-- > 0;) {
    allocation.plan = PlanAtRung(problem, r);
    const int64_t bytes = MeasurePlan(problem, allocation.plan);
    if (bytes <= allowed) {
      allocation.explanation = absl::StrCat("Every unit is ", rungs[r],
                                            ", the largest that fits the budget; ", wider, ".");
      break;
    }
    if (r == 0) {
      allocation.plan = SmallestPlan(problem);
      allocation.explanation = absl::StrCat("Every unit is at its smallest format; ", rungs[r],
                                            " everywhere would take ", bytes, " bytes.");
      break;
    }
    wider = absl::StrCat(rungs[r], " would take ", bytes, " bytes");
  }
  MeasureAllocation(problem, allocation);
  return allocation;
}

}  // namespace

constinit const AllocatorDef AllocatorDefs::uniform = {
    .name = "uniform",
    .help = "the largest single format that fits",
    .needs_cost = false,
    .needs_layer_score = false,
    .allocate = &AllocateUniform,
};

}  // namespace lwq
