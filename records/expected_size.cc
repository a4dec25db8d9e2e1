#include "records/expected_size.h"

#include <algorithm>

#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "records/plan_records.h"
#include "worker/engine/plan/allocator.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

absl::StatusOr<int64_t> FileBytes(v1::QuantizeSpec spec, const v1::ModelManifest& manifest) {
  if (spec.profile().empty()) spec.set_profile("vllm-lowbit");  // as the server fills it in
  LWQ_ASSIGN_OR_RETURN(ModelInventory source, InventoryOf(manifest.inventory()));
  LWQ_ASSIGN_OR_RETURN(const ModelInventory model, InventoryFor(spec, std::move(source)));
  AllocationProblem problem;
  problem.model = &model;
  LWQ_ASSIGN_OR_RETURN(const Budget budget, BudgetOf(spec.budget(), model));
  problem.budget = ResolveShare(budget, manifest.weight_bytes());
  problem.max_shard_bytes = spec.max_shard_bytes();
  LWQ_ASSIGN_OR_RETURN(problem.menu, MenuOf(spec, model));
  const Plan largest = LargestPlan(problem);
  const int64_t measured = MeasurePlan(problem, largest);
  // What files have besides what the budget counts is the same for every plan, but for names.
  const int64_t besides = WeightFileBytes(model, largest, spec.max_shard_bytes()) - measured;
  return std::min(AllowedBytes(problem), measured) + besides;
}

}  // namespace

int64_t ExpectedFileBytes(const v1::QuantizeSpec& spec, const v1::ModelManifest& manifest) {
  return std::max<int64_t>(0, FileBytes(spec, manifest).value_or(0));
}

}  // namespace lwq
