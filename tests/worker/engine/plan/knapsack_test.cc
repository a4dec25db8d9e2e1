#include <algorithm>
#include <cmath>
#include <random>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/allocation_measure.h"
#include "worker/engine/plan/allocator.h"
#include "worker/engine/plan/profile.h"

namespace lwq {
namespace {

using testing::LlamaInventory;
using testing::MenuFor;
using testing::Width;

// Costs as measured ones look: about fourfold less a bit, a few hundredfold between units, noisy.
std::vector<std::vector<double>> MeasuredCosts(const ModelInventory& model,
                                               const std::vector<int>& bits, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> cost;
  for (size_t u = 0; u < model.units.size(); ++u) {
    const double scale = std::exp(1.5 * normal(random));
    std::vector<double> row;
    for (int b : bits) {
      row.push_back(scale * std::exp(0.3 * normal(random)) * std::ldexp(1.0, -2 * b));
    }
    cost.push_back(row);
  }
  return cost;
}

AllocationProblem Problem(const ModelInventory& model, const std::vector<int>& bits,
                          unsigned seed) {
  AllocationProblem problem;
  problem.model = &model;
  problem.menu = MenuFor(model, bits);
  problem.cost = MeasuredCosts(model, bits, seed);
  return problem;
}

int64_t SmallestBytes(const AllocationProblem& problem) {
  return MeasurePlan(problem, SmallestPlan(problem));
}
int64_t LargestBytes(const AllocationProblem& problem) {
  return MeasurePlan(problem, LargestPlan(problem));
}

// 20 budgets on the sample model's shapes, in file bytes: the forecast is what the layout gives,
// none is over, and the widths leave less than 0.5 % open.
TEST(KnapsackTest, NeverExceedsAndNearlyFillsTwentyRandomBudgets) {
  const ModelInventory model = LlamaInventory({});
  AllocationProblem problem = Problem(model, {2, 3, 4, 8}, 7);
  problem.budget = {.kind = Budget::Kind::kFileBytes, .bytes = 1};
  const int64_t low = SmallestBytes(problem);
  const int64_t high = LargestBytes(problem);
  std::mt19937_64 random(11);
  for (int i = 0; i < 20; ++i) {
    problem.budget.bytes = low + static_cast<int64_t>(random() % (high - low));
    problem.max_shard_bytes = i % 4 == 3 ? 1000000 : 0;
    const absl::StatusOr<Allocation> allocation = Allocate("knapsack", problem);
    if (!allocation.ok()) {  // shards have a header each: the smallest plan may just not fit
      EXPECT_GT(SmallestBytes(problem), problem.budget.bytes);
      continue;
    }
    EXPECT_LE(allocation->plan_bytes, problem.budget.bytes);
    EXPECT_GE(allocation->plan_bytes, problem.budget.bytes * 0.995) << problem.budget.bytes;
    EXPECT_EQ(allocation->plan_bytes,
              LayOutArtifact(model, allocation->plan, problem.max_shard_bytes).weight_bytes);
    EXPECT_EQ(allocation->budget_bytes, problem.budget.bytes);
  }
}

TEST(KnapsackTest, FillsBudgetsInBitsPerWeightAndDeviceBytes) {
  const ModelInventory model = LlamaInventory({.tied = false});
  AllocationProblem problem = Problem(model, {2, 3, 4, 8}, 3);
  for (const char* text : {"2.5bpw", "3.0bpw", "3.5bpw", "4.0bpw", "5.0bpw", "12MB@512x1"}) {
    problem.budget = *ParseBudget(text);
    LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("knapsack", problem));
    EXPECT_LE(allocation.plan_bytes, allocation.budget_bytes) << text;
    EXPECT_GE(allocation.plan_bytes, allocation.budget_bytes * 0.995) << text;
    if (problem.budget.kind == Budget::Kind::kBitsPerWeight) {
      EXPECT_LE(allocation.bits_per_weight, problem.budget.bits_per_weight);
    }
  }
}

// Small models against every combination, in the file's own bytes: the plan is never over, and
// costs no more than the best one of a budget smaller by what headers can vary (8 bytes a tensor
// here).
TEST(KnapsackTest, EqualsBruteForceOnSmallModels) {
  const ModelInventory model = LlamaInventory({.layers = 1, .vocab = 256});
  for (unsigned seed = 0; seed < 40; ++seed) {
    AllocationProblem problem = Problem(model, {2, 3, 4, 8}, seed);
    problem.budget = {.kind = Budget::Kind::kFileBytes, .bytes = 1};
    const int64_t low = SmallestBytes(problem);
    const int64_t high = LargestBytes(problem);
    problem.budget.bytes = low + (high - low) * (seed + 1) / 41;
    LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("knapsack", problem));
    const int64_t slack =
        8 * static_cast<int64_t>(
                LayOutArtifact(model, allocation.plan, 0).files[0].layout.tensors.size());
    double best = 1e9;
    for (int code = 0; code < 256; ++code) {
      Plan plan;
      double cost = 0;
      for (int u = 0; u < 4; ++u) {
        const int f = code >> 2 * u & 3;
        plan.push_back(problem.menu.units[u].formats[f]);
        cost += *std::min_element(problem.cost[u].begin(), problem.cost[u].begin() + f + 1);
      }
      if (MeasurePlan(problem, plan) <= problem.budget.bytes - slack) {
        best = std::min(best, cost);
      }
    }
    EXPECT_LE(allocation.predicted_cost, best * (1 + 1e-12)) << seed;
    EXPECT_LE(allocation.plan_bytes, problem.budget.bytes);
  }
}

TEST(KnapsackTest, CostsNoMoreWithALargerBudget) {
  const ModelInventory model = LlamaInventory({.layers = 6});
  AllocationProblem problem = Problem(model, {2, 3, 4, 8, 16}, 5);
  double last = 1e300;
  for (double bits = 2.2; bits < 16; bits += 0.07) {
    problem.budget = {.kind = Budget::Kind::kBitsPerWeight, .bits_per_weight = bits};
    LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("knapsack", problem));
    EXPECT_LE(allocation.predicted_cost, last);
    last = allocation.predicted_cost;
  }
}

TEST(KnapsackTest, NeverCostsMoreThanUniformOrTwoLevel) {
  const ModelInventory model = LlamaInventory({});
  AllocationProblem problem = Problem(model, {2, 3, 4, 8}, 9);
  for (const char* text : {"2.2bpw", "2.5bpw", "3.2bpw", "4.2bpw", "6bpw", "9bpw"}) {
    problem.budget = *ParseBudget(text);
    LWQ_ASSERT_OK_AND_ASSIGN(const Allocation best, Allocate("knapsack", problem));
    for (const char* other : {"uniform", "two-level"}) {
      LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate(other, problem));
      EXPECT_LE(best.predicted_cost, allocation.predicted_cost * (1 + 1e-12)) << text << other;
    }
  }
}

TEST(KnapsackTest, FrontierAgreesWithSingleRuns) {
  const ModelInventory model = LlamaInventory({.layers = 3});
  AllocationProblem problem = Problem(model, {2, 4, 8}, 6);
  for (const char* text : {"3bpw", "6MB"}) {
    problem.budget = *ParseBudget(text);
    LWQ_ASSERT_OK_AND_ASSIGN(const auto frontier, KnapsackFrontier(problem));
    ASSERT_GT(frontier.size(), 10u);
    for (size_t i = 1; i < frontier.size(); ++i) {
      EXPECT_LT(frontier[i - 1].plan_bytes, frontier[i].plan_bytes);
      EXPECT_GT(frontier[i - 1].cost, frontier[i].cost);
    }
    if (problem.budget.kind != Budget::Kind::kFileBytes) continue;
    for (size_t i = 0; i < frontier.size(); i += frontier.size() / 10) {
      problem.budget.bytes = frontier[i].plan_bytes;
      LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("knapsack", problem));
      EXPECT_LE(allocation.predicted_cost, frontier[i].cost * (1 + 1e-12));
    }
  }
}

// Ranks stand in for costs: layers that matter get the bits.
TEST(KnapsackTest, DerivesCostsFromLayerScores) {
  const ModelInventory model = LlamaInventory({});
  AllocationProblem problem = Problem(model, {2, 3, 4, 8}, 0);
  problem.cost.clear();
  problem.layer_score = {12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  problem.budget = *ParseBudget("3bpw");
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("knapsack", problem));
  EXPECT_EQ(allocation.predicted_cost, 0);
  for (int unit = 0; unit < 4; ++unit) {
    EXPECT_GT(problem.menu.units[unit].Find(allocation.plan[unit]),
              problem.menu.units[4 + unit].Find(allocation.plan[4 + unit]));
  }
}

// All-zero costs: nothing is gained by bits, and the budget is still spent.
TEST(KnapsackTest, SpendsTheBudgetWhenCostsAreFlat) {
  const ModelInventory model = LlamaInventory({});
  AllocationProblem problem = Problem(model, {2, 3, 4, 8}, 0);
  for (auto& row : problem.cost) row.assign(4, 0.0);
  problem.budget = *ParseBudget("6MB");
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("knapsack", problem));
  EXPECT_GE(allocation.plan_bytes, 0.995 * 6000000);
}

// A zero-point tensor adds an entry to the header, which no bound on digits foresees.
TEST(KnapsackTest, KeepsABudgetOfFileBytesWhereFormatsDifferInTensors) {
  const ModelInventory model = LlamaInventory({.layers = 40});
  AllocationProblem problem;
  problem.model = &model;
  LWQ_ASSERT_OK_AND_ASSIGN(const ProfileDef* profile, FindProfile("vllm-lowbit"));
  LWQ_ASSERT_OK_AND_ASSIGN(problem.menu,
                           BuildMenu(model, *profile, {.formats = {"int4-g128", "int4-g32-asym"}}));
  for (const UnitMenu& unit : problem.menu.units) {
    problem.cost.emplace_back(unit.formats.size(), 1.0);
  }
  problem.budget.kind = Budget::Kind::kFileBytes;
  const int64_t smallest = MeasurePlan(problem, SmallestPlan(problem));
  const int64_t largest = MeasurePlan(problem, LargestPlan(problem));
  for (int step = 0; step <= 40; ++step) {
    problem.budget.bytes = smallest + (largest - smallest) * step / 40;
    LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("knapsack", problem));
    ASSERT_LE(allocation.plan_bytes, problem.budget.bytes) << step;
  }
}

// Sizes without a common divisor and a budget in the petabytes: bounded work, no wrap.
TEST(KnapsackTest, SurvivesPathologicalSizes) {
  ModelInventory model = LlamaInventory({.layers = 40});
  std::mt19937 random(1);
  for (AllocationUnit& unit : model.units) {
    for (LinearShape& l : unit.linears) l.out_features = 32 * (1 + random() % 1000003);
  }
  AllocationProblem problem = Problem(model, {2, 3, 4, 8, 16}, 1);
  problem.budget = *ParseBudget("3.3bpw");
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("knapsack", problem));
  EXPECT_LE(allocation.plan_bytes, allocation.budget_bytes);
  EXPECT_GE(allocation.plan_bytes, 0.9999 * allocation.budget_bytes);
  // Its front has millions of points; the part around the budget has few.
  EXPECT_EQ(allocation.explanation, "Lowest predicted cost of all plans.");
}

}  // namespace
}  // namespace lwq
