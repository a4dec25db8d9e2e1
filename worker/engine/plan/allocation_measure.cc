#include "worker/engine/plan/allocation_measure.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

__extension__ typedef __int128 Int128;

// Every sum of sizes below 2^60 bytes: no arithmetic of the planner can then wrap.
constexpr Int128 kMaxModelBytes = Int128{1} << 60;
constexpr size_t kMaxFormats = 64;

absl::Status CheckSizes(const ModelInventory& model) {
  Int128 bytes = 0;
  const auto add = [&bytes](Int128 elements) {
    bytes += elements * 8;
    return bytes < kMaxModelBytes;
  };
  for (const AllocationUnit& unit : model.units) {
    if (unit.linears.empty()) {
      return InvalidFailure("MODEL_INVALID", absl::StrCat("unit ", unit.name, " has no linears"));
    }
    for (const LinearShape& linear : unit.linears) {
      if (linear.out_features <= 0 || linear.in_features <= 0) {
        return InvalidFailure("MODEL_INVALID",
                              absl::StrCat(linear.module, " has shape [", linear.out_features, ", ",
                                           linear.in_features, "]; both must be positive"));
      }
      if (!add(Int128{linear.out_features} * linear.in_features)) {
        return InvalidFailure("MODEL_TOO_LARGE",
                              absl::StrCat(linear.module, " takes the model past 2^60 bytes"));
      }
    }
  }
  for (const TensorSpec& tensor : model.dense) {
    Int128 elements = 1;
    for (int64_t d : tensor.shape) {
      elements = d < 0 || elements > kMaxModelBytes ? kMaxModelBytes : elements * d;
    }
    if (!add(elements)) {
      return InvalidFailure("MODEL_TOO_LARGE",
                            absl::StrCat(tensor.name, " takes the model past 2^60 bytes"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckFormats(const AllocationProblem& problem) {
  const auto& formats = problem.formats;
  if (formats.empty() || formats.size() > kMaxFormats) {
    return InvalidFailure("FORMATS_INVALID", absl::StrCat("planning needs 1 to ", kMaxFormats,
                                                          " formats, got ", formats.size()));
  }
  for (size_t f = 1; f < formats.size(); ++f) {
    if (formats[f].bits <= formats[f - 1].bits) {
      return InvalidFailure("FORMATS_INVALID",
                            absl::StrCat("formats must ascend in bits, but ", formats[f].bits,
                                         " follows ", formats[f - 1].bits));
    }
  }
  for (const AllocationUnit& unit : problem.model->units) {
    for (const UnitFormat& format : formats) LWQ_RETURN_IF_ERROR(CheckFormat(unit, format));
  }
  return absl::OkStatus();
}

absl::Status CheckScores(const AllocationProblem& problem) {
  const ModelInventory& model = *problem.model;
  if (!problem.cost.empty() && problem.cost.size() != model.units.size()) {
    return InvalidFailure("COST_INVALID",
                          absl::StrCat("costs of ", problem.cost.size(), " units for a model of ",
                                       model.units.size()));
  }
  for (size_t u = 0; u < problem.cost.size(); ++u) {
    const auto& row = problem.cost[u];
    if (row.size() != problem.formats.size()) {
      return InvalidFailure("COST_INVALID",
                            absl::StrCat("unit ", model.units[u].name, " has ", row.size(),
                                         " costs for ", problem.formats.size(), " formats"));
    }
    for (size_t f = 0; f < row.size(); ++f) {
      if (!std::isfinite(row[f])) {
        return InvalidFailure("COST_INVALID",
                              absl::StrCat("the cost of unit ", model.units[u].name, " at ",
                                           problem.formats[f].bits, " bits is ", row[f]));
      }
    }
  }
  if (problem.layer_score.empty()) return absl::OkStatus();
  if (problem.layer_score.size() != static_cast<size_t>(model.num_layers)) {
    return InvalidFailure("COST_INVALID",
                          absl::StrCat("scores of ", problem.layer_score.size(),
                                       " layers for a model of ", model.num_layers));
  }
  for (size_t l = 0; l < problem.layer_score.size(); ++l) {
    if (!std::isfinite(problem.layer_score[l])) {
      return InvalidFailure("COST_INVALID",
                            absl::StrCat("the score of layer ", l, " is ", problem.layer_score[l]));
    }
  }
  return absl::OkStatus();
}

// The least budget of the same form under which a plan of `bytes` fits.
Budget BudgetThatHolds(const Budget& budget, const ModelInventory& model, int64_t bytes) {
  Budget smallest = budget;
  if (budget.kind != Budget::Kind::kBitsPerWeight) {
    smallest.bytes = bytes;
    return smallest;
  }
  // To four decimals, upwards.
  const double weights = static_cast<double>(std::max<int64_t>(model.num_quantizable_weights(), 1));
  double ticks = std::ceil(8.0 * static_cast<double>(bytes) / weights * 1e4);
  do {
    smallest.bits_per_weight = ticks++ / 1e4;
  } while (BudgetBytes(smallest, model) < bytes && smallest.bits_per_weight < 64);
  return smallest;
}

}  // namespace

absl::Status CheckProblem(const AllocationProblem& problem) {
  if (problem.model == nullptr || problem.model->units.empty()) {
    return InvalidFailure("MODEL_INVALID", "planning a model without quantizable linears");
  }
  const int num_layers = problem.model->num_layers;
  for (const AllocationUnit& unit : problem.model->units) {
    if (unit.layer < -1 || unit.layer >= num_layers) {
      return InvalidFailure("MODEL_INVALID",
                            absl::StrCat("unit ", unit.name, " is of layer ", unit.layer,
                                         " in a model of ", num_layers, " layers"));
    }
  }
  LWQ_RETURN_IF_ERROR(CheckSizes(*problem.model));
  LWQ_RETURN_IF_ERROR(CheckFormats(problem));
  LWQ_RETURN_IF_ERROR(CheckScores(problem));
  if (BudgetBytes(problem.budget, *problem.model) <= 0) {
    return InvalidFailure("BUDGET_INVALID", "the budget must be above zero");
  }
  return absl::OkStatus();
}

absl::Status CheckCosted(const AllocatorDef& def, const AllocationProblem& problem) {
  if (def.needs_cost && problem.cost.empty()) {
    return InvalidFailure("COST_INVALID",
                          absl::StrCat("allocator ", def.name, " needs a cost for each unit"));
  }
  if (def.needs_layer_score && problem.cost.empty() && problem.layer_score.empty()) {
    return InvalidFailure(
        "COST_INVALID", absl::StrCat("allocator ", def.name, " needs layer scores or unit costs"));
  }
  return absl::OkStatus();
}

int64_t MeasurePlan(const AllocationProblem& problem, const std::vector<UnitFormat>& formats) {
  return PlanBytes(problem.budget, *problem.model, formats, problem.max_shard_bytes);
}

int64_t SmallestPlanBytes(const AllocationProblem& problem) {
  return MeasurePlan(problem,
                     std::vector<UnitFormat>(problem.model->units.size(), problem.formats.front()));
}

absl::Status CheckFeasible(const AllocationProblem& problem) {
  const int64_t allowed = BudgetBytes(problem.budget, *problem.model);
  const int64_t smallest = SmallestPlanBytes(problem);
  if (smallest <= allowed) return absl::OkStatus();
  const std::string needed =
      FormatBudget(BudgetThatHolds(problem.budget, *problem.model, smallest));
  return PreconditionFailure(
      "BUDGET_INFEASIBLE",
      absl::StrCat("the budget ", FormatBudget(problem.budget), " (", allowed,
                   " bytes) is below the smallest plan, every unit at ",
                   FormatName(problem.formats.front()), ", which takes ", smallest,
                   " bytes; the smallest budget that would do is ", needed));
}

void MeasureAllocation(const AllocationProblem& problem, Allocation& allocation) {
  const ModelInventory& model = *problem.model;
  allocation.budget_bytes = BudgetBytes(problem.budget, model);
  allocation.plan_bytes = MeasurePlan(problem, allocation.formats);
  allocation.weight_file_bytes =
      problem.budget.kind == Budget::Kind::kFileBytes
          ? allocation.plan_bytes
          : LayOutArtifact(model, allocation.formats, problem.max_shard_bytes).weight_bytes;
  allocation.bits_per_weight = BitsPerWeight(model, allocation.formats);
  allocation.predicted_cost = 0;
  for (size_t u = 0; u < problem.cost.size(); ++u) {
    for (size_t f = 0; f < problem.formats.size(); ++f) {
      if (problem.formats[f] == allocation.formats[u]) {
        allocation.predicted_cost += problem.cost[u][f];
      }
    }
  }
}

std::vector<int> RankLayers(const AllocationProblem& problem) {
  std::vector<double> score = problem.layer_score;
  if (score.empty()) {
    score.assign(problem.model->num_layers, 0);
    for (size_t u = 0; u < problem.cost.size(); ++u) {
      const int layer = problem.model->units[u].layer;
      if (layer >= 0) score[layer] += problem.cost[u][0];
    }
  }
  std::vector<int> rank(score.size());
  std::iota(rank.begin(), rank.end(), 0);
  std::stable_sort(rank.begin(), rank.end(), [&](int a, int b) { return score[a] > score[b]; });
  return rank;
}

std::vector<std::vector<double>> UnitCosts(const AllocationProblem& problem) {
  if (!problem.cost.empty()) return problem.cost;
  const std::vector<int> rank = RankLayers(problem);
  const double num_layers = static_cast<double>(rank.size());
  std::vector<double> importance(rank.size());
  for (size_t r = 0; r < rank.size(); ++r) {
    importance[rank[r]] = (num_layers - static_cast<double>(r)) / num_layers;
  }
  std::vector<std::vector<double>> cost;
  for (const AllocationUnit& unit : problem.model->units) {
    const double weight =
        (unit.layer < 0 ? 1.0 : importance[unit.layer]) * static_cast<double>(unit.num_weights());
    std::vector<double> row;
    for (const UnitFormat& format : problem.formats) {
      row.push_back(std::ldexp(weight, -2 * format.bits));
    }
    cost.push_back(std::move(row));
  }
  return cost;
}

std::string FormatName(const UnitFormat& format) {
  return format.dense() ? "16-bit (dense)" : absl::StrCat(format.bits, "-bit");
}

}  // namespace lwq
