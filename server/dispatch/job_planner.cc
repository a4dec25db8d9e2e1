#include "server/dispatch/job_planner.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "records/expected_size.h"
#include "records/option_records.h"
#include "records/plan_records.h"
#include "server/dispatch/job_options.h"
#include "worker/engine/plan/allocation_measure.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/engine/plan/memory_model.h"

namespace lwq {
namespace {

struct Prepared {
  ModelInventory model;
  AllocationProblem problem;
};

absl::StatusOr<std::unique_ptr<Prepared>> Prepare(const v1::QuantizeSpec& spec,
                                                  const v1::ModelManifest& manifest) {
  auto prepared = std::make_unique<Prepared>();
  LWQ_ASSIGN_OR_RETURN(ModelInventory model, InventoryOf(manifest.inventory()));
  LWQ_ASSIGN_OR_RETURN(prepared->model, InventoryFor(spec, std::move(model)));
  AllocationProblem& problem = prepared->problem;
  problem.model = &prepared->model;
  LWQ_ASSIGN_OR_RETURN(const Budget budget, BudgetOf(spec.budget(), prepared->model));
  problem.budget = ResolveShare(budget, manifest.weight_bytes());
  problem.max_shard_bytes = spec.max_shard_bytes();
  LWQ_ASSIGN_OR_RETURN(problem.menu, MenuOf(spec, prepared->model));
  LWQ_ASSIGN_OR_RETURN(const AllocatorDef* allocator, FindAllocator(spec.allocator()));
  LWQ_ASSIGN_OR_RETURN(problem.options,
                       OptionValues::Make(absl::StrCat("allocator ", spec.allocator()),
                                          allocator->options, TextsOf(spec.allocator_options())));
  return prepared;
}

// The costs of one unit's formats; the source's own weights cost nothing.
absl::Status FillUnit(const AllocationUnit& unit, const UnitMenu& menu,
                      const std::map<std::pair<std::string, std::string>, double>& costs,
                      std::vector<double>& row) {
  for (const WeightFormat* format : menu.formats) {
    const auto cost = costs.find({unit.name, format->id()});
    if (cost == costs.end() && !format->dense()) {
      return Failure(reasons::kScoreMissing, absl::StrCat("planning: no measured cost of ",
                                                          unit.name, " in format ", format->id()));
    }
    const double value = cost == costs.end() ? 0.0 : cost->second;
    if (!std::isfinite(value)) {
      return Failure(reasons::kScoreNotFinite,
                     absl::StrCat("planning: the measured cost of ", unit.name, " in format ",
                                  format->id(), " is ", value));
    }
    row.push_back(value);
  }
  return absl::OkStatus();
}

// The orders that every layer has a score in.
void FillRankings(const std::vector<v1::ScoreResult>& scores, AllocationProblem& problem) {
  const size_t num_layers = static_cast<size_t>(problem.model->num_layers);
  std::map<std::string, std::map<int, double>> rankings;
  for (const v1::ScoreResult& score : scores) {
    for (const auto& [name, value] : score.rankings()) rankings[name][score.layer()] = value;
  }
  for (const auto& [name, by_layer] : rankings) {
    Ranking ranking{name, {}};
    for (const auto& [layer, value] : by_layer) {
      if (layer >= 0 && std::isfinite(value)) ranking.layer_score.push_back(value);
    }
    if (ranking.layer_score.size() == num_layers) problem.rankings.push_back(std::move(ranking));
  }
}

// Costs by unit and format where the scorer measured them, importance by layer where it ranks.
absl::Status FillScores(const std::vector<v1::ScoreResult>& scores, AllocationProblem& problem) {
  bool has_costs = false;
  for (const v1::ScoreResult& score : scores) has_costs = has_costs || score.has_costs();
  FillRankings(scores, problem);
  if (!has_costs) {
    problem.layer_score.assign(problem.model->num_layers, 0.0);
    for (const v1::ScoreResult& score : scores) {
      if (score.layer() >= 0 && score.layer() < problem.model->num_layers) {
        problem.layer_score[score.layer()] = score.layer_score();
      }
    }
    return absl::OkStatus();
  }
  std::map<std::pair<std::string, std::string>, double> costs;
  for (const v1::ScoreResult& score : scores) {
    for (const v1::UnitCost& cost : score.costs()) {
      costs[{cost.unit(), cost.format()}] = cost.cost();
    }
  }
  for (size_t u = 0; u < problem.model->units.size(); ++u) {
    problem.cost.emplace_back();
    LWQ_RETURN_IF_ERROR(
        FillUnit(problem.model->units[u], problem.menu.units[u], costs, problem.cost.back()));
  }
  return absl::OkStatus();
}

v1::PlanSummary SummaryOf(const Allocation& allocation, const AllocationProblem& problem) {
  v1::PlanSummary plan = PlanToProto(allocation.plan, *problem.model);
  for (size_t u = 0; u < problem.cost.size(); ++u) {
    const int f = problem.menu.units[u].Find(allocation.plan[u]);
    if (f >= 0) plan.mutable_units(static_cast<int>(u))->set_cost(problem.cost[u][f]);
  }
  plan.set_budget_bytes(allocation.budget_bytes);
  plan.set_plan_bytes(allocation.plan_bytes);
  plan.set_weight_file_bytes(allocation.weight_file_bytes);
  plan.set_bits_per_weight(allocation.bits_per_weight);
  plan.set_predicted_cost(allocation.predicted_cost);
  plan.set_explanation(allocation.explanation);
  for (const Comparison& comparison : allocation.comparisons) {
    v1::PlanComparison& out = *plan.add_comparisons();
    out.set_baseline(comparison.baseline);
    out.set_baseline_kl(comparison.baseline_kl);
    out.set_difference(comparison.difference);
    if (comparison.standard_error) out.set_standard_error(*comparison.standard_error);
  }
  return plan;
}

absl::StatusOr<MeasuredPlan> MeasuredPlanOf(const v1::PlanTrial& trial,
                                            const AllocationProblem& problem) {
  MeasuredPlan measured;
  measured.kl = trial.kl();
  measured.origin = trial.origin();
  measured.block_kl.assign(trial.block_kl().begin(), trial.block_kl().end());
  measured.judged = trial.judged();
  const auto invalid = [&](absl::string_view what) {
    return Failure(reasons::kTrialInvalid,
                   absl::StrCat("planning: the measured plan \"", trial.origin(), "\" ", what));
  };
  if (!std::isfinite(measured.kl)) return invalid(absl::StrCat("has a KL of ", measured.kl));
  for (int u = 0; u < trial.formats_size(); ++u) {
    LWQ_ASSIGN_OR_RETURN(const WeightFormat* format, FormatOf(trial.formats(u)));
    const size_t unit = static_cast<size_t>(u);
    if (unit >= problem.menu.units.size() || problem.menu.units[unit].Find(format) < 0) {
      return invalid(absl::StrCat("has unit ", u, " in format \"", trial.formats(u),
                                  "\", which is not on its menu"));
    }
    measured.plan.push_back(format);
  }
  return measured;
}

// Choices are short; what is longer than a chunk keeps its keys and values as a text does.
constexpr int64_t kLongestChoice = 2048;

int64_t LongestSequence(const v1::Evaluation& evaluation, const ModelInventory& model) {
  int64_t longest = 0;
  if (!evaluation.text_dataset().empty()) {
    longest = LongestWindow(evaluation.text_tokens(), model.max_positions);
  }
  if (evaluation.task_datasets().empty()) return longest;
  return std::max(longest, std::min(kLongestChoice, model.max_positions));
}

}  // namespace

absl::StatusOr<std::map<int, Products>> ProductsOf(const v1::QuantizeSpec& spec,
                                                   const v1::ModelManifest& manifest) {
  LWQ_ASSIGN_OR_RETURN(ModelInventory model, InventoryOf(manifest.inventory()));
  LWQ_ASSIGN_OR_RETURN(const ModelInventory inventory, InventoryFor(spec, std::move(model)));
  LWQ_ASSIGN_OR_RETURN(const Menu menu, MenuOf(spec, inventory));
  return QuantizedFormats(menu, inventory);
}

// What a source has that holds fewer bytes than its weights take as floats: it was quantized
// before, or is of 8-bit floats.
void WarnOfSmallSource(const v1::QuantizeSpec& spec, const v1::ModelManifest& manifest,
                       Feasibility& result) {
  const int64_t stored = manifest.weight_bytes();
  if (stored <= 0) return;
  // Halves, 8-bit floats and less are told from headers and padding by far.
  if (static_cast<double>(stored) < 0.75 * static_cast<double>(result.source_bytes)) {
    result.warnings.push_back(absl::StrCat(
        "the source stores its weights in ", stored, " bytes, which take ", result.source_bytes,
        " as ", manifest.inventory().weight_dtype(),
        ": it is quantized already, and what that cost is not won back; give the model that it was "
        "made from, if there is one"));
  }
  const int64_t most = ExpectedFileBytes(spec, manifest);
  if (most > stored) {
    result.warnings.push_back(absl::StrCat("the weight files may take ", most,
                                           " bytes, more than the source's ", stored,
                                           ": give a smaller budget"));
  }
}

absl::StatusOr<Feasibility> CheckFeasibility(const v1::QuantizeSpec& spec,
                                             const v1::ModelManifest& manifest,
                                             MemoryQuestion memory) {
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<Prepared> prepared, Prepare(spec, manifest));
  const AllocationProblem& problem = prepared->problem;
  const std::vector<UnitMenu>& units = problem.menu.units;
  if (std::none_of(units.begin(), units.end(), [](const UnitMenu& u) { return u.Quantizable(); })) {
    return Failure(reasons::kFormatUnsupported,
                   absl::StrCat("nothing of the model would be quantized: ",
                                problem.menu.notes.empty() ? "dense is the only format asked for"
                                                           : problem.menu.notes.front()));
  }
  LWQ_RETURN_IF_ERROR(CheckProblem(problem));
  Feasibility result;
  result.warnings = problem.menu.notes;
  result.budget_bytes = AllowedBytes(problem);
  LWQ_ASSIGN_OR_RETURN(const AllocatorDef* allocator, FindAllocator(spec.allocator()));
  result.smallest_bytes = SmallestBytes(*allocator, problem);
  result.largest_bytes = MeasurePlan(problem, LargestPlan(problem));
  const Plan dense(prepared->model.units.size(), DenseFormat());
  result.source_bytes = WeightFileBytes(prepared->model, dense, 0);
  memory.menu = &problem.menu;
  memory.refinement = memory.factors && Refines(spec);
  memory.bf16 = spec.compute() == "bf16";
  memory.longest_window = LongestSequence(spec.evaluation(), prepared->model);
  result.memory = ForecastUnderCeiling(prepared->model, memory, spec.memory_bytes());
  LWQ_RETURN_IF_ERROR(CheckMemoryCeiling(result.memory, spec.memory_bytes()));
  LWQ_RETURN_IF_ERROR(CheckFeasible(*allocator, problem));
  if (std::string above = AboveLargestPlan(problem); !above.empty()) {
    result.warnings.push_back(std::move(above));
  }
  WarnOfSmallSource(spec, manifest, result);
  return result;
}

absl::Status RecordTrial(const v1::TaskOutput& output, v1::PlanTrial& trial) {
  if (!output.has_trial()) {
    return Failure(reasons::kTrialMissing,
                   absl::StrCat("planning: no measured KL of the plan \"", trial.origin(), "\""));
  }
  trial.set_kl(output.trial().kl());
  trial.set_standard_error(output.trial().standard_error());
  *trial.mutable_block_kl() = output.trial().block_kl();
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
    LWQ_ASSIGN_OR_RETURN(MeasuredPlan plan, MeasuredPlanOf(trial, problem));
    plans.push_back(std::move(plan));
  }
  LWQ_ASSIGN_OR_RETURN(const AllocationStep next, NextStep(spec.allocator(), problem, plans));
  PlanStep step;
  step.judge = next.judge;
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
    trial.set_judged(next.judge);
    for (const WeightFormat* format : candidate.plan) trial.add_formats(FormatId(format));
    trial.set_plan_bytes(candidate.plan_bytes);
    trial.set_predicted_cost(candidate.predicted_cost);
    step.formats.push_back(SummaryOf(candidate, problem));
  }
  return step;
}

}  // namespace lwq
