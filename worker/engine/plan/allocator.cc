#include "worker/engine/plan/allocator.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/plan/allocation_measure.h"
#include "worker/engine/plan/baselines.h"

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
  return Failure(
      reasons::kAllocatorUnknown,
      absl::StrCat("there is no allocator \"", name, "\"; the allocators are ",
                   absl::StrJoin(kAllocators, ", ", [](std::string* out, const AllocatorDef* def) {
                     absl::StrAppend(out, def->name);
                   })));
}

absl::StatusOr<Allocation> Allocate(absl::string_view allocator, const AllocationProblem& problem) {
  LWQ_ASSIGN_OR_RETURN(const AllocatorDef* def, FindAllocator(allocator));
  LWQ_RETURN_IF_ERROR(CheckProblem(problem));
  LWQ_RETURN_IF_ERROR(CheckCosted(*def, problem));
  LWQ_RETURN_IF_ERROR(CheckFeasible(*def, problem));
  return def->allocate(problem);
}

namespace {

absl::Status CheckMeasured(const AllocationProblem& problem,
                           absl::Span<const MeasuredPlan> measured) {
  for (const MeasuredPlan& plan : measured) {
    if (plan.plan.size() != problem.model->units.size()) {
      return absl::InvalidArgumentError(absl::StrCat("a measured plan of ", plan.plan.size(),
                                                     " units for a model of ",
                                                     problem.model->units.size()));
    }
  }
  return absl::OkStatus();
}

// The plan within the budget with the least KL.
absl::StatusOr<Allocation> BestMeasured(const AllocationProblem& problem,
                                        absl::Span<const MeasuredPlan> measured) {
  const int64_t allowed = AllowedBytes(problem);
  const MeasuredPlan* best = nullptr;
  int candidates = 0;
  for (const MeasuredPlan& plan : measured) {
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

const MeasuredPlan* FindMeasured(absl::Span<const MeasuredPlan> measured, const Plan& plan) {
  for (const MeasuredPlan& one : measured) {
    if (one.plan == plan) return &one;
  }
  return nullptr;
}

// What is judged: the plan that won the trials, and the baselines that are other plans.
std::vector<Allocation> Contenders(const Allocation& best, std::vector<Baseline> baselines) {
  std::vector<Allocation> contenders = {best};
  contenders[0].explanation = "the winner of the trials.";
  for (Baseline& baseline : baselines) {
    if (baseline.allocation.plan == best.plan) continue;
    baseline.allocation.explanation = absl::StrCat(baseline.name, ".");
    contenders.push_back(std::move(baseline.allocation));
  }
  return contenders;
}

// The winner of the trials, or uniform where that does better on text that chose nothing.
absl::StatusOr<Allocation> Judge(const Allocation& best, const std::vector<Baseline>& baselines,
                                 absl::Span<const MeasuredPlan> judged) {
  const MeasuredPlan* winner = FindMeasured(judged, best.plan);
  const MeasuredPlan* uniform = FindMeasured(judged, baselines.front().allocation.plan);
  if (winner == nullptr || uniform == nullptr) {
    return absl::InvalidArgumentError("the plan to choose, or uniform, was not judged");
  }
  Allocation chosen = best;
  if (uniform->kl < winner->kl) {
    chosen = baselines.front().allocation;
    chosen.explanation = absl::StrFormat(
        "%s On text that chose nothing it does better (%.5f) than the winner of the trials (%.5f).",
        chosen.explanation, uniform->kl, winner->kl);
    winner = uniform;
  }
  for (const Baseline& baseline : baselines) {
    const MeasuredPlan* other = FindMeasured(judged, baseline.allocation.plan);
    if (other == nullptr || other == winner) continue;
    const PairedDifference difference = Compare(winner->block_kl, other->block_kl);
    chosen.comparisons.push_back(
        {baseline.name, other->kl, winner->kl - other->kl, difference.standard_error});
  }
  return chosen;
}

// Splits what was measured by the text that it was measured on.
std::vector<MeasuredPlan> Measured(absl::Span<const MeasuredPlan> all, bool judged) {
  std::vector<MeasuredPlan> plans;
  for (const MeasuredPlan& plan : all) {
    if (plan.judged == judged) plans.push_back(plan);
  }
  return plans;
}

}  // namespace

absl::StatusOr<AllocationStep> NextStep(absl::string_view allocator,
                                        const AllocationProblem& problem,
                                        absl::Span<const MeasuredPlan> measured) {
  LWQ_ASSIGN_OR_RETURN(const AllocatorDef* def, FindAllocator(allocator));
  AllocationStep step;
  if (measured.empty()) {
    LWQ_ASSIGN_OR_RETURN(step.allocation, Allocate(allocator, problem));
    if (def->propose == nullptr) return step;
    LWQ_ASSIGN_OR_RETURN(step.to_measure, def->propose(problem, measured));
    return step;
  }
  LWQ_RETURN_IF_ERROR(CheckProblem(problem));
  LWQ_RETURN_IF_ERROR(CheckMeasured(problem, measured));
  const std::vector<MeasuredPlan> tried = Measured(measured, /*judged=*/false);
  LWQ_ASSIGN_OR_RETURN(step.allocation, BestMeasured(problem, tried));
  if (def->propose == nullptr) return step;
  LWQ_ASSIGN_OR_RETURN(step.to_measure, def->propose(problem, tried));
  if (!step.to_measure.empty()) return step;
  LWQ_ASSIGN_OR_RETURN(std::vector<Baseline> baselines, Baselines(problem));
  const std::vector<MeasuredPlan> judged = Measured(measured, /*judged=*/true);
  if (judged.empty()) {
    step.to_measure = Contenders(step.allocation, std::move(baselines));
    step.judge = true;
    if (step.to_measure.size() == 1) step.to_measure.clear();  // nothing to compare with
    return step;
  }
  LWQ_ASSIGN_OR_RETURN(step.allocation, Judge(step.allocation, baselines, judged));
  return step;
}

}  // namespace lwq
