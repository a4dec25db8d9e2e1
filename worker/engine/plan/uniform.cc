// One format for every unit: the baseline of every mixture.
#include "absl/strings/str_cat.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

absl::StatusOr<Allocation> AllocateUniform(const AllocationProblem& problem) {
  const int64_t allowed = BudgetBytes(problem.budget, *problem.model);
  const size_t num_units = problem.model->units.size();
  Allocation allocation;
  std::string wider = "there is no wider one";
  for (size_t f = problem.formats.size(); f-- > 0;) {
    allocation.formats.assign(num_units, problem.formats[f]);
    const int64_t bytes = MeasurePlan(problem, allocation.formats);
    if (bytes <= allowed || f == 0) {
      allocation.explanation = absl::StrCat("Every unit is ", FormatName(problem.formats[f]),
                                            ", the widest that fits the budget; ", wider, ".");
      break;
    }
    wider = absl::StrCat(FormatName(problem.formats[f]), " would take ", bytes, " bytes");
  }
  MeasureAllocation(problem, allocation);
  return allocation;
}

}  // namespace

constinit const AllocatorDef AllocatorDefs::uniform = {
    .name = "uniform",
    .help = "the widest single format that fits",
    .needs_cost = false,
    .needs_layer_score = false,
    .allocate = &AllocateUniform,
};

}  // namespace lwq
