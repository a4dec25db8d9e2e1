#include "server/dispatch/job_planner.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/plan/artifact_layout.h"
#include "worker/engine/plan/memory_model.h"
#include "worker/engine/plan/profile.h"

namespace lwq {
namespace {

struct Prepared {
  ModelInventory model;
  AllocationProblem problem;
};

absl::StatusOr<std::unique_ptr<Prepared>> Prepare(const v1::QuantizeSpec& spec,
                                                  const v1::ModelManifest& manifest) {
  auto prepared = std::make_unique<Prepared>();
  LWQ_ASSIGN_OR_RETURN(prepared->model, InventoryOf(manifest.inventory()));
  AllocationProblem& problem = prepared->problem;
  problem.model = &prepared->model;
  LWQ_ASSIGN_OR_RETURN(problem.budget, BudgetOf(spec.budget()));
  problem.max_shard_bytes = spec.max_shard_bytes();
  LWQ_ASSIGN_OR_RETURN(const ProfileDef* profile, FindProfile(spec.profile()));
  LWQ_ASSIGN_OR_RETURN(
      problem.formats,
      FormatsFor(*profile, std::vector<int>(spec.bits().begin(), spec.bits().end()),
                 spec.group_size() < 0 ? 0 : spec.group_size(), !spec.asymmetric()));
  for (const AllocationUnit& unit : prepared->model.units) {
    for (const UnitFormat& format : problem.formats) {
      LWQ_RETURN_IF_ERROR(CheckFormat(unit, format));
    }
  }
  return prepared;
}

// Costs by unit and width where the scorer measured them, importance by layer where it ranks.
absl::Status FillScores(const std::vector<v1::ScoreResult>& scores, AllocationProblem& problem) {
  bool has_costs = false;
  for (const v1::ScoreResult& score : scores) has_costs = has_costs || score.has_costs();
  if (!has_costs) {
    problem.layer_score.assign(problem.model->num_layers, 0.0);
    for (const v1::ScoreResult& score : scores) {
      if (score.layer() >= 0 && score.layer() < problem.model->num_layers) {
        problem.layer_score[score.layer()] = score.layer_score();
      }
    }
    return absl::OkStatus();
  }
  std::map<std::pair<std::string, int>, double> costs;
  for (const v1::ScoreResult& score : scores) {
    for (const v1::UnitCost& cost : score.costs()) costs[{cost.unit(), cost.bits()}] = cost.cost();
  }
  for (const AllocationUnit& unit : problem.model->units) {
    std::vector<double> row;
    for (const UnitFormat& format : problem.formats) {
      auto cost = costs.find({unit.name, format.bits});
      if (cost == costs.end() && !format.dense()) {
        return Failure(absl::StatusCode::kInternal, "SCORE_MISSING",
                       absl::StrCat("planning: no measured cost of ", unit.name, " at ",
                                    format.bits, " bits"));
      }
      const double value = cost == costs.end() ? 0.0 : cost->second;
      if (!std::isfinite(value)) {
        return Failure(absl::StatusCode::kInternal, "SCORE_NOT_FINITE",
                       absl::StrCat("planning: the measured cost of ", unit.name, " at ",
                                    format.bits, " bits is ", value));
      }
      row.push_back(value);
    }
    problem.cost.push_back(std::move(row));
  }
  return absl::OkStatus();
}

v1::PlanSummary SummaryOf(const Allocation& allocation, const AllocationProblem& problem) {
  v1::PlanSummary plan;
  for (size_t u = 0; u < problem.model->units.size(); ++u) {
    const UnitFormat& format = allocation.formats[u];
    v1::UnitChoice& choice = *plan.add_units();
    choice.set_unit(problem.model->units[u].name);
    choice.set_layer(problem.model->units[u].layer);
    choice.set_bits(format.bits);
    choice.set_group_size(format.dense() ? 0 : format.group_size);
    choice.set_asymmetric(!format.dense() && !format.symmetric);
    for (size_t f = 0; f < problem.formats.size() && !problem.cost.empty(); ++f) {
      if (problem.formats[f] == format) choice.set_cost(problem.cost[u][f]);
    }
  }
  plan.set_budget_bytes(allocation.budget_bytes);
  plan.set_plan_bytes(allocation.plan_bytes);
  plan.set_weight_file_bytes(allocation.weight_file_bytes);
  plan.set_bits_per_weight(allocation.bits_per_weight);
  plan.set_predicted_cost(allocation.predicted_cost);
  plan.set_explanation(allocation.explanation);
  return plan;
}

absl::StatusOr<MeasuredPlan> PlanOf(const v1::PlanTrial& trial, const AllocationProblem& problem) {
  MeasuredPlan plan;
  plan.kl = trial.kl();
  plan.origin = trial.origin();
  for (int bits : trial.bits()) {
    auto format = std::find_if(problem.formats.begin(), problem.formats.end(),
                               [bits](const UnitFormat& f) { return f.bits == bits; });
    if (format == problem.formats.end() || !std::isfinite(plan.kl)) {
      return Failure(absl::StatusCode::kInternal, "TRIAL_INVALID",
                     absl::StrCat("planning: the measured plan \"", trial.origin(), "\" has ", bits,
                                  " bits in a unit and a KL of ", plan.kl));
    }
    plan.formats.push_back(*format);
  }
  return plan;
}

}  // namespace

absl::StatusOr<ModelInventory> InventoryOf(const v1::Inventory& inventory) {
  ModelInventory model;
  auto dtype = [](const std::string& name) -> absl::StatusOr<DType> {
    const std::optional<DType> found = DTypeFromName(name);
    if (!found) return InvalidFailure("DTYPE_UNKNOWN", absl::StrCat("dtype \"", name, "\""));
    return *found;
  };
  model.num_layers = inventory.num_layers();
  LWQ_ASSIGN_OR_RETURN(model.weight_dtype, dtype(inventory.weight_dtype()));
  for (const v1::InventoryUnit& unit : inventory.units()) {
    AllocationUnit& u = model.units.emplace_back();
    u.name = unit.name();
    u.layer = unit.layer();
    for (const v1::InventoryLinear& linear : unit.linears()) {
      u.linears.push_back({linear.module(), linear.out_features(), linear.in_features()});
    }
  }
  for (const v1::InventoryTensor& tensor : inventory.dense()) {
    TensorSpec& t = model.dense.emplace_back();
    t.name = tensor.name();
    LWQ_ASSIGN_OR_RETURN(t.dtype, dtype(tensor.dtype()));
    t.shape.assign(tensor.shape().begin(), tensor.shape().end());
  }
  model.hidden_size = inventory.hidden_size();
  model.intermediate_size = inventory.intermediate_size();
  model.vocab_size = inventory.vocab_size();
  model.num_heads = inventory.num_heads();
  model.num_kv_heads = inventory.num_kv_heads();
  model.head_dim = inventory.head_dim();
  model.max_positions = inventory.max_positions();
  return model;
}

absl::StatusOr<Budget> BudgetOf(const v1::Budget& budget) {
  Budget result;
  switch (budget.kind_case()) {
    case v1::Budget::kFileBytes:
      result.kind = Budget::Kind::kFileBytes;
      result.bytes = budget.file_bytes();
      break;
    case v1::Budget::kBitsPerWeight:
      result.kind = Budget::Kind::kBitsPerWeight;
      result.bits_per_weight = budget.bits_per_weight();
      if (!std::isfinite(result.bits_per_weight) || result.bits_per_weight <= 0 ||
          result.bits_per_weight > 64) {
        return InvalidFailure(
            "BUDGET_INVALID",
            absl::StrCat("bits_per_weight ", result.bits_per_weight, " is not between 0 and 64"));
      }
      return result;
    case v1::Budget::kDevice:
      result.kind = Budget::Kind::kDeviceBytes;
      result.bytes = budget.device().bytes();
      result.context_length = budget.device().context_length();
      result.batch_size = std::max<int64_t>(1, budget.device().batch_size());
      if (result.context_length < 0 || result.context_length > (int64_t{1} << 32) ||
          result.batch_size > (int64_t{1} << 20)) {
        return InvalidFailure(
            "BUDGET_INVALID",
            absl::StrCat("device budget with context_length ", result.context_length,
                         " and batch_size ", result.batch_size));
      }
      break;
    default:
      return InvalidFailure("BUDGET_INVALID",
                            "no budget: set file_bytes, bits_per_weight or device");
  }
  if (result.bytes <= 0) {
    return InvalidFailure("BUDGET_INVALID",
                          absl::StrCat("a budget of ", result.bytes, " bytes is not positive"));
  }
  return result;
}

absl::StatusOr<Feasibility> CheckFeasibility(const v1::QuantizeSpec& spec,
                                             const v1::ModelManifest& manifest, bool calibrated) {
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<Prepared> prepared, Prepare(spec, manifest));
  const AllocationProblem& problem = prepared->problem;
  Feasibility result;
  result.budget_bytes = BudgetBytes(problem.budget, prepared->model);
  result.smallest_bytes = SmallestPlanBytes(problem);
  const std::vector<UnitFormat> largest(prepared->model.units.size(), problem.formats.back());
  result.largest_bytes =
      PlanBytes(problem.budget, prepared->model, largest, problem.max_shard_bytes);
  const std::vector<UnitFormat> dense(prepared->model.units.size(), UnitFormat{});
  result.source_bytes = LayOutArtifact(prepared->model, dense, 0).weight_bytes;
  const MemoryForecast memory =
      ForecastWorkerMemory(prepared->model, calibrated, spec.compute() == "bf16");
  result.memory_bytes = memory.total_bytes;
  LWQ_RETURN_IF_ERROR(CheckMemoryCeiling(memory, spec.memory_bytes()));
  if (result.smallest_bytes > result.budget_bytes) {
    return PreconditionFailure(
        "BUDGET_INFEASIBLE",
        absl::StrCat("a budget of ", FormatBudget(problem.budget), " (", result.budget_bytes,
                     " bytes) is below the smallest plan: ", result.smallest_bytes, " bytes at ",
                     problem.formats.front().bits, " bits in every linear; ask for at least that"));
  }
  if (result.budget_bytes > result.largest_bytes) {
    result.warnings.push_back(absl::StrCat(
        "the budget of ", result.budget_bytes, " bytes is above the largest plan's ",
        result.largest_bytes, ": every linear gets ", problem.formats.back().bits, " bits"));
  }
  return result;
}

absl::Status RecordTrial(const v1::TaskOutput& output, v1::PlanTrial& trial) {
  if (!output.has_trial()) {
    return Failure(absl::StatusCode::kInternal, "TRIAL_MISSING",
                   absl::StrCat("planning: no measured KL of the plan \"", trial.origin(), "\""));
  }
  trial.set_kl(output.trial().kl());
  trial.set_standard_error(output.trial().standard_error());
  return absl::OkStatus();
}

absl::StatusOr<PlanStep> NextPlanStep(const v1::QuantizeSpec& spec,
                                      const v1::ModelManifest& manifest,
                                      const std::vector<v1::ScoreResult>& scores,
                                      const std::vector<v1::PlanTrial>& measured) {
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<Prepared> prepared, Prepare(spec, manifest));
  AllocationProblem& problem = prepared->problem;
  if (!scores.empty()) LWQ_RETURN_IF_ERROR(FillScores(scores, problem));
  std::vector<MeasuredPlan> plans;
  for (const v1::PlanTrial& trial : measured) {
    LWQ_ASSIGN_OR_RETURN(MeasuredPlan plan, PlanOf(trial, problem));
    plans.push_back(std::move(plan));
  }
  LWQ_ASSIGN_OR_RETURN(const AllocationStep next, NextStep(spec.allocator(), problem, plans));
  PlanStep step;
  step.plan = SummaryOf(next.allocation, problem);
  step.plan.set_source_bytes(manifest.weight_bytes());
  if (!next.to_measure.empty()) {
    step.plan.set_explanation(
        absl::StrCat("Not chosen yet: ", next.to_measure.size(),
                     " plans are to be measured first. So far: ", next.allocation.explanation));
  }
  for (const Allocation& candidate : next.to_measure) {
    v1::PlanTrial& trial = step.trials.emplace_back();
    trial.set_origin(candidate.explanation);
    for (const UnitFormat& format : candidate.formats) trial.add_bits(format.bits);
    trial.set_plan_bytes(candidate.plan_bytes);
    trial.set_predicted_cost(candidate.predicted_cost);
    step.formats.push_back(SummaryOf(candidate, problem));
  }
  return step;
}

}  // namespace lwq
