#include "worker/engine/plan/allocation_measure.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/failure_details.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/engine/plan/kept_layers.h"

namespace lwq {
namespace {

__extension__ typedef __int128 Int128;

// Every sum of sizes below 2^60 bytes: no arithmetic of the planner can then wrap.
constexpr Int128 kMaxModelBytes = Int128{1} << 60;
constexpr size_t kMaxRungs = 64;

absl::Status CheckSizes(const ModelInventory& model) {
  Int128 bytes = 0;
  const auto add = [&bytes](Int128 elements) {
    bytes += elements * 8;
    return bytes < kMaxModelBytes;
  };
  for (const AllocationUnit& unit : model.units) {
    if (unit.linears.empty()) {
      return Failure(reasons::kModelInvalid, absl::StrCat("unit ", unit.name, " has no linears"));
    }
    for (const LinearShape& linear : unit.linears) {
      if (linear.out_features <= 0 || linear.in_features <= 0) {
        return Failure(reasons::kModelInvalid,
                       absl::StrCat(linear.module, " has shape [", linear.out_features, ", ",
                                    linear.in_features, "]; both must be positive"));
      }
      if (!add(Int128{linear.out_features} * linear.in_features)) {
        return Failure(reasons::kModelTooLarge,
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
      return Failure(reasons::kModelTooLarge,
                     absl::StrCat(tensor.name, " takes the model past 2^60 bytes"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckMenu(const AllocationProblem& problem) {
  const Menu& menu = problem.menu;
  const ModelInventory& model = *problem.model;
  if (menu.rungs.empty() || menu.rungs.size() > kMaxRungs ||
      menu.units.size() != model.units.size()) {
    return Failure(reasons::kMenuInvalid,
                   absl::StrCat("planning needs 1 to ", kMaxRungs, " rungs, got ",
                                menu.rungs.size(), ", and a menu for each of ", model.units.size(),
                                " units, got ", menu.units.size()));
  }
  for (size_t u = 0; u < menu.units.size(); ++u) {
    const UnitMenu& unit = menu.units[u];
    if (unit.formats.empty() || unit.at_rung.size() != menu.rungs.size()) {
      return Failure(
          reasons::kMenuInvalid,
          absl::StrCat("the menu of unit ", model.units[u].name, " has ", unit.formats.size(),
                       " formats for ", unit.at_rung.size(), " of ", menu.rungs.size(), " rungs"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckScores(const AllocationProblem& problem) {
  const ModelInventory& model = *problem.model;
  if (!problem.cost.empty() && problem.cost.size() != model.units.size()) {
    return Failure(reasons::kCostInvalid,
                   absl::StrCat("costs of ", problem.cost.size(), " units for a model of ",
                                model.units.size()));
  }
  for (size_t u = 0; u < problem.cost.size(); ++u) {
    const auto& row = problem.cost[u];
    const UnitMenu& menu = problem.menu.units[u];
    if (row.size() != menu.formats.size()) {
      return Failure(reasons::kCostInvalid,
                     absl::StrCat("unit ", model.units[u].name, " has ", row.size(), " costs for ",
                                  menu.formats.size(), " formats"));
    }
    for (size_t f = 0; f < row.size(); ++f) {
      if (!std::isfinite(row[f])) {
        return Failure(reasons::kCostInvalid,
                       absl::StrCat("the cost of unit ", model.units[u].name, " at ",
                                    menu.formats[f]->id(), " is ", row[f]));
      }
    }
  }
  if (problem.layer_score.empty()) return absl::OkStatus();
  if (problem.layer_score.size() != static_cast<size_t>(model.num_layers)) {
    return Failure(reasons::kCostInvalid,
                   absl::StrCat("scores of ", problem.layer_score.size(), " layers for a model of ",
                                model.num_layers));
  }
  for (size_t l = 0; l < problem.layer_score.size(); ++l) {
    if (!std::isfinite(problem.layer_score[l])) {
      return Failure(reasons::kCostInvalid,
                     absl::StrCat("the score of layer ", l, " is ", problem.layer_score[l]));
    }
  }
  return absl::OkStatus();
}

// The least budget of the same form under which a plan of `bytes` fits.
Budget BudgetThatHolds(const AllocationProblem& problem, int64_t bytes) {
  Budget smallest = problem.budget;
  if (smallest.kind != Budget::Kind::kBitsPerWeight) {
    smallest.bytes = bytes;
    return smallest;
  }
  // To four decimals, upwards.
  const int64_t num_weights = std::max<int64_t>(NumQuantizableWeights(problem), 1);
  double ticks =
      std::ceil(8.0 * static_cast<double>(bytes) / static_cast<double>(num_weights) * 1e4);
  do {
    smallest.bits_per_weight = ticks++ / 1e4;
  } while (BudgetBytes(smallest, num_weights) < bytes &&
           smallest.bits_per_weight < kMaxBitsPerWeight);
  return smallest;
}

// What the linears of a plan take; `counted` leaves out the units that cannot be quantized.
int64_t PayloadBytes(const AllocationProblem& problem, const Plan& plan, bool counted) {
  const ModelInventory& model = *problem.model;
  int64_t bytes = 0;
  for (size_t u = 0; u < model.units.size(); ++u) {
    if (counted && !problem.menu.units[u].Quantizable()) continue;
    bytes += UnitPayloadBytes(model, model.units[u], plan[u]);
  }
  return bytes;
}

}  // namespace

absl::Status CheckProblem(const AllocationProblem& problem) {
  if (problem.model == nullptr || problem.model->units.empty()) {
    return Failure(reasons::kModelInvalid, "planning a model without quantizable linears");
  }
  const int num_layers = problem.model->num_layers;
  for (const AllocationUnit& unit : problem.model->units) {
    const Place place = unit.place;
    const bool placed = place.in_layer() ? place.layer >= 0 && place.layer < num_layers
                                         : place == Place::Head() || place == Place::Embedding();
    if (!placed) {
      return Failure(reasons::kModelInvalid,
                     absl::StrCat("unit ", unit.name, " is of layer ", place.layer,
                                  " in a model of ", num_layers, " layers"));
    }
  }
  LWQ_RETURN_IF_ERROR(CheckSizes(*problem.model));
  LWQ_RETURN_IF_ERROR(CheckMenu(problem));
  LWQ_RETURN_IF_ERROR(CheckScores(problem));
  if (AllowedBytes(problem) <= 0) {
    return Failure(reasons::kBudgetInvalid, "the budget must be above zero");
  }
  return absl::OkStatus();
}

absl::Status CheckCosted(const AllocatorDef& def, const AllocationProblem& problem) {
  if (def.needs_cost && problem.cost.empty()) {
    return Failure(reasons::kCostInvalid,
                   absl::StrCat("allocator ", def.name, " needs a cost for each unit"));
  }
  if (def.needs_layer_score && problem.cost.empty() && problem.layer_score.empty()) {
    return Failure(reasons::kCostInvalid,
                   absl::StrCat("allocator ", def.name, " needs layer scores or unit costs"));
  }
  return absl::OkStatus();
}

int64_t NumQuantizableWeights(const AllocationProblem& problem) {
  int64_t weights = 0;
  for (size_t u = 0; u < problem.model->units.size(); ++u) {
    if (problem.menu.units[u].Quantizable()) weights += problem.model->units[u].num_weights();
  }
  return weights;
}

int64_t AllowedBytes(const AllocationProblem& problem) {
  return BudgetBytes(problem.budget, NumQuantizableWeights(problem));
}

int64_t MeasurePlan(const AllocationProblem& problem, const Plan& plan) {
  const ModelInventory& model = *problem.model;
  switch (problem.budget.kind) {
    case Budget::Kind::kFileBytes:
    case Budget::Kind::kShareOfSource:  // of the bytes of files, as ResolveShare says how many
      return WeightFileBytes(model, plan, problem.max_shard_bytes);
    case Budget::Kind::kBitsPerWeight:
      return PayloadBytes(problem, plan, /*counted=*/true);
    case Budget::Kind::kDeviceBytes:
      break;
  }
  int64_t bytes = PayloadBytes(problem, plan, /*counted=*/false);
  const bool drops = DropsLayers(model, plan);
  const ModelInventory kept = drops ? KeepLayers(model, plan).model : ModelInventory();
  const ModelInventory& there = drops ? kept : model;
  for (const TensorSpec& tensor : there.dense) bytes += tensor.size_bytes();
  const int64_t cache =
      KvCacheBytes(there, problem.budget.context_length, problem.budget.batch_size);
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  return cache > kMost - bytes ? kMost : bytes + cache;
}

Plan SmallestPlan(const AllocationProblem& problem) {
  Plan plan;
  for (const UnitMenu& unit : problem.menu.units) plan.push_back(unit.formats.front());
  return plan;
}

Plan LargestPlan(const AllocationProblem& problem) {
  Plan plan;
  for (const UnitMenu& unit : problem.menu.units) plan.push_back(unit.formats.back());
  return plan;
}

Plan PlanAtRung(const AllocationProblem& problem, size_t rung) {
  Plan plan;
  for (const UnitMenu& unit : problem.menu.units) {
    plan.push_back(unit.formats[static_cast<size_t>(unit.at_rung[rung])]);
  }
  return plan;
}

int64_t SmallestBytes(const AllocatorDef& allocator, const AllocationProblem& problem) {
  return MeasurePlan(
      problem, allocator.smallest == nullptr ? SmallestPlan(problem) : allocator.smallest(problem));
}

absl::Status CheckFeasible(const AllocatorDef& allocator, const AllocationProblem& problem) {
  const int64_t allowed = AllowedBytes(problem);
  const int64_t smallest = SmallestBytes(allocator, problem);
  if (smallest <= allowed) return absl::OkStatus();
  const std::string enough = FormatBudget(BudgetThatHolds(problem, smallest));
  absl::Status status = Failure(
      reasons::kBudgetInfeasible,
      absl::StrCat("the budget ", FormatBudget(problem.budget), " (", allowed,
                   " bytes) is below the smallest plan, every unit",
                   allocator.smallest == nullptr ? "" : " that is left",
                   " at its smallest format (", problem.menu.rungs.front(), "), which takes ",
                   smallest, " bytes; the smallest budget that would do is ", enough));
  AddFact("budget_bytes", absl::StrCat(allowed), &status);
  AddFact("smallest_bytes", absl::StrCat(smallest), &status);
  AddFact("smallest_budget", enough, &status);
  return status;
}

std::string AboveLargestPlan(const AllocationProblem& problem) {
  const int64_t largest = MeasurePlan(problem, LargestPlan(problem));
  if (AllowedBytes(problem) <= largest) return "";
  return absl::StrCat("the budget ", FormatBudget(problem.budget), " (", AllowedBytes(problem),
                      " bytes) is above the largest plan, which ",
                      FormatBudget(BudgetThatHolds(problem, largest)), " holds (", largest,
                      " bytes): every linear gets its largest format");
}

void MeasureAllocation(const AllocationProblem& problem, Allocation& allocation) {
  const ModelInventory& model = *problem.model;
  allocation.budget_bytes = AllowedBytes(problem);
  allocation.plan_bytes = MeasurePlan(problem, allocation.plan);
  allocation.weight_file_bytes =
      problem.budget.kind == Budget::Kind::kFileBytes
          ? allocation.plan_bytes
          : WeightFileBytes(model, allocation.plan, problem.max_shard_bytes);
  const int64_t weights = NumQuantizableWeights(problem);
  const int64_t payload = PayloadBytes(problem, allocation.plan, /*counted=*/true);
  allocation.bits_per_weight =
      weights == 0 ? 0 : 8.0 * static_cast<double>(payload) / static_cast<double>(weights);
  allocation.predicted_cost =
      problem.cost.empty() ? 0 : PredictedCost(problem, problem.cost, allocation.plan);
}

void SetUnits(const ModelInventory& model, Place place, const Plan& from, Plan& plan) {
  for (size_t u = 0; u < model.units.size(); ++u) {
    if (model.units[u].place == place) plan[u] = from[u];
  }
}

double PredictedCost(const AllocationProblem& problem,
                     const std::vector<std::vector<double>>& costs, const Plan& plan) {
  double cost = 0;
  for (size_t u = 0; u < plan.size(); ++u) {
    const int f = problem.menu.units[u].Find(plan[u]);
    if (f >= 0) cost += costs[u][static_cast<size_t>(f)];
  }
  return cost;
}

std::vector<int> RankLayers(const AllocationProblem& problem) {
  std::vector<double> score = problem.layer_score;
  if (score.empty()) {
    score.assign(problem.model->num_layers, 0);
    for (size_t u = 0; u < problem.cost.size(); ++u) {
      const Place place = problem.model->units[u].place;
      if (place.in_layer()) score[place.layer] += problem.cost[u][0];
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
  for (size_t u = 0; u < problem.model->units.size(); ++u) {
    const AllocationUnit& unit = problem.model->units[u];
    const double weights = static_cast<double>(unit.num_weights());
    const double weight = (unit.place.in_layer() ? importance[unit.place.layer] : 1.0) * weights;
    std::vector<double> row;
    for (const WeightFormat* format : problem.menu.units[u].formats) {
      const double bytes = static_cast<double>(UnitPayloadBytes(*problem.model, unit, format));
      row.push_back(weight * std::exp2(-2 * 8 * bytes / weights));
    }
    cost.push_back(std::move(row));
  }
  return cost;
}

}  // namespace lwq
