#include "worker/engine/plan/allocator.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

constexpr const AllocatorDef* kAllocators[] = {
#define LWQ_ALLOCATOR(file) &AllocatorDefs::file,
#include "worker/engine/plan/allocators.def"
#undef LWQ_ALLOCATOR
};

}  // namespace

absl::Span<const AllocatorDef* const> Allocators() { return kAllocators; }

absl::StatusOr<const AllocatorDef*> FindAllocator(absl::string_view name) {
  for (const AllocatorDef* def : kAllocators) {
    if (def->name == name) return def;
  }
  return InvalidFailure(
      "ALLOCATOR_UNKNOWN",
      absl::StrCat("there is no allocator \"", name, "\"; the allocators are ",
                   absl::StrJoin(kAllocators, ", ", [](std::string* out, const AllocatorDef* def) {
                     absl::StrAppend(out, def->name);
                   })));
}

absl::StatusOr<Allocation> Allocate(absl::string_view allocator, const AllocationProblem& problem) {
  LWQ_ASSIGN_OR_RETURN(const AllocatorDef* def, FindAllocator(allocator));
  LWQ_RETURN_IF_ERROR(CheckProblem(problem));
  LWQ_RETURN_IF_ERROR(CheckCosted(*def, problem));
  LWQ_RETURN_IF_ERROR(CheckFeasible(problem));
  return def->allocate(problem);
}

namespace {

// The plan within the budget with the least KL.
absl::StatusOr<Allocation> BestMeasured(const AllocationProblem& problem,
                                        absl::Span<const MeasuredPlan> measured) {
  const int64_t allowed = AllowedBytes(problem);
  const MeasuredPlan* best = nullptr;
  int candidates = 0;
  for (const MeasuredPlan& plan : measured) {
    if (plan.plan.size() != problem.model->units.size()) {
      return absl::InvalidArgumentError(absl::StrCat("a measured plan of ", plan.plan.size(),
                                                     " units for a model of ",
                                                     problem.model->units.size()));
    }
    if (MeasurePlan(problem, plan.plan) > allowed) continue;
    ++candidates;
    if (best == nullptr || plan.kl < best->kl) best = &plan;
  }
  if (best == nullptr) return absl::InvalidArgumentError("no measured plan is within the budget");
  Allocation allocation;
  allocation.plan = best->plan;
  MeasureAllocation(problem, allocation);
  allocation.explanation =
      absl::StrFormat("Lowest measured KL, %.5f, of %d plans within the budget: %s", best->kl,
                      candidates, best->origin);
  return allocation;
}

}  // namespace

absl::StatusOr<AllocationStep> NextStep(absl::string_view allocator,
                                        const AllocationProblem& problem,
                                        absl::Span<const MeasuredPlan> measured) {
  LWQ_ASSIGN_OR_RETURN(const AllocatorDef* def, FindAllocator(allocator));
  AllocationStep step;
  if (measured.empty()) {
    LWQ_ASSIGN_OR_RETURN(step.allocation, Allocate(allocator, problem));
  } else {
    LWQ_RETURN_IF_ERROR(CheckProblem(problem));
    LWQ_ASSIGN_OR_RETURN(step.allocation, BestMeasured(problem, measured));
  }
  if (def->propose != nullptr) {
    LWQ_ASSIGN_OR_RETURN(step.to_measure, def->propose(problem, measured));
  }
  return step;
}

}  // namespace lwq
