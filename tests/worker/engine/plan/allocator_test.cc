#include "worker/engine/plan/allocator.h"

#include <cmath>
#include <limits>

#include "base/failure_details.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::AllOf;
using ::testing::HasSubstr;

class AllocatorTest : public ::testing::Test {
 protected:
  AllocatorTest() : model_(testing::LlamaInventory({})) {
    problem_.model = &model_;
    problem_.menu = testing::MenuFor(model_, {2, 4, 8});
    problem_.cost.assign(model_.units.size(), {0.3, 0.2, 0.1});
    problem_.budget = *ParseBudget("4bpw");
  }
  ModelInventory model_;
  AllocationProblem problem_;
};

TEST_F(AllocatorTest, ListsAllocatorsByName) {
  std::vector<std::string> names;
  for (const AllocatorDef* def : Allocators()) names.emplace_back(def->name);
  EXPECT_THAT(names, ::testing::ElementsAre("drop", "knapsack", "lwq", "ranges", "three-level", "two-level",
                                            "uniform"));
  EXPECT_THAT(FindAllocator("greedy"),
              FailsWith("ALLOCATOR_UNKNOWN",
                        AllOf(HasSubstr("greedy"), HasSubstr("knapsack"), HasSubstr("two-level"))));
}

TEST_F(AllocatorTest, EveryAllocatorKeepsTheBudgetAndExplainsItself) {
  for (const AllocatorDef* def : Allocators()) {
    LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate(def->name, problem_));
    EXPECT_EQ(allocation.plan.size(), model_.units.size());
    EXPECT_LE(allocation.plan_bytes, allocation.budget_bytes);
    EXPECT_EQ(allocation.budget_bytes, AllowedBytes(problem_));
    EXPECT_EQ(allocation.plan_bytes, MeasurePlan(problem_, allocation.plan));
    EXPECT_EQ(allocation.weight_file_bytes,
              LayOutArtifact(model_, allocation.plan, 0).weight_bytes);
    EXPECT_GT(allocation.predicted_cost, 0);
    EXPECT_EQ(allocation.explanation.back(), '.');
  }
}

TEST_F(AllocatorTest, AnInfeasibleBudgetNamesTheSmallestThatWouldDo) {
  for (const AllocatorDef* def : Allocators()) {
    // One that leaves layers out goes lower: only what is left of the model is too much.
    const auto too_little = def->smallest == nullptr
                                ? std::vector<std::string>{"1.9bpw", "100000", "100000@512x2"}
                                : std::vector<std::string>{"0.1bpw", "10000", "10000@512x2"};
    for (const std::string& text : too_little) {
      problem_.budget = *ParseBudget(text);
      const auto refused = Allocate(def->name, problem_);
      ASSERT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
      ASSERT_THAT(refused, FailsWith("BUDGET_INFEASIBLE", HasSubstr(text)));
      const std::string message(refused.status().message());
      const std::string needed = message.substr(message.rfind(' ') + 1);
      EXPECT_EQ(FactsOf(refused.status())["smallest_budget"], needed);
      AllocationProblem enough = problem_;
      LWQ_ASSERT_OK_AND_ASSIGN(enough.budget, ParseBudget(needed));
      EXPECT_EQ(enough.budget.kind, problem_.budget.kind);
      EXPECT_OK(Allocate(def->name, enough)) << needed;
      // And nothing smaller in the digits that are printed.
      if (enough.budget.kind == Budget::Kind::kBitsPerWeight) {
        enough.budget.bits_per_weight -= 1e-4;
      } else {
        --enough.budget.bytes;
      }
      EXPECT_THAT(Allocate(def->name, enough), FailsWith("BUDGET_INFEASIBLE", HasSubstr(needed)));
    }
  }
}

TEST_F(AllocatorTest, RefusesCostsThatAreNotNumbers) {
  for (double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    problem_.cost[5][1] = bad;
    for (const AllocatorDef* def : Allocators()) {
      EXPECT_THAT(Allocate(def->name, problem_),
                  FailsWith("COST_INVALID",
                            AllOf(HasSubstr("layers.1.self_attn.o_proj"), HasSubstr("int4-g128"))));
    }
    EXPECT_THAT(KnapsackFrontier(problem_), FailsWith("COST_INVALID", HasSubstr("layers.1")));
  }
  problem_.cost.clear();
  problem_.layer_score.assign(12, 1.0);
  problem_.layer_score[3] = std::nan("");
  EXPECT_THAT(Allocate("two-level", problem_), FailsWith("COST_INVALID", HasSubstr("layer 3")));
}

TEST_F(AllocatorTest, RefusesScoresAndCostsOfAnotherShape) {
  problem_.cost[3].pop_back();
  EXPECT_THAT(Allocate("knapsack", problem_), FailsWith("COST_INVALID", HasSubstr("2 costs")));
  problem_.cost.pop_back();
  EXPECT_THAT(Allocate("knapsack", problem_), FailsWith("COST_INVALID", HasSubstr("47 units")));
  problem_.cost.clear();
  EXPECT_THAT(Allocate("knapsack", problem_), FailsWith("COST_INVALID", HasSubstr("needs")));
  EXPECT_THAT(Allocate("two-level", problem_), FailsWith("COST_INVALID", HasSubstr("needs")));
  EXPECT_OK(Allocate("uniform", problem_));
  problem_.layer_score.assign(11, 1.0);
  EXPECT_THAT(Allocate("two-level", problem_), FailsWith("COST_INVALID", HasSubstr("11 layers")));
}

TEST_F(AllocatorTest, RefusesMenusOfAnotherModel) {
  problem_.menu.units[3].formats.clear();
  EXPECT_THAT(Allocate("uniform", problem_),
              FailsWith("MENU_INVALID", HasSubstr("layers.0.mlp.down_proj has 0 formats")));
  problem_.menu.units.pop_back();
  EXPECT_THAT(Allocate("uniform", problem_), FailsWith("MENU_INVALID", HasSubstr("got 47")));
  problem_.menu.rungs.clear();
  EXPECT_THAT(Allocate("uniform", problem_), FailsWith("MENU_INVALID", HasSubstr("got 0")));
}

// Units that cannot be quantized are no part of a budget in bits per weight, and stay dense.
TEST_F(AllocatorTest, UnitsWithoutAChoiceAreNotCounted) {
  const int64_t before = NumQuantizableWeights(problem_);
  for (LinearShape& linear : model_.units[5].linears) linear.out_features = 250;
  problem_.menu = testing::MenuFor(model_, {2, 4, 8});
  problem_.cost[5] = {0};
  EXPECT_EQ(problem_.menu.units[5].formats, Plan{DenseFormat()});
  EXPECT_EQ(NumQuantizableWeights(problem_), before - 256 * 256);
  for (const AllocatorDef* def : Allocators()) {
    if (def == &AllocatorDefs::drop) continue;  // layers that are not alike: drop_test.cc
    LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate(def->name, problem_));
    EXPECT_EQ(allocation.plan[5], DenseFormat());
    EXPECT_LE(allocation.bits_per_weight, 4.0);
    EXPECT_LE(allocation.plan_bytes, allocation.budget_bytes);
  }
}

TEST_F(AllocatorTest, RefusesModelsThatCannotBe) {
  problem_.cost.clear();
  model_.units[2].linears[0].out_features = int64_t{1} << 62;
  EXPECT_THAT(Allocate("uniform", problem_), FailsWith("MODEL_TOO_LARGE", HasSubstr("gate_proj")));
  model_.units[2].linears[0].out_features = -32;
  EXPECT_THAT(Allocate("uniform", problem_), FailsWith("MODEL_INVALID", HasSubstr("gate_proj")));
  model_ = testing::LlamaInventory({});
  model_.dense[0].shape = {int64_t{1} << 40, int64_t{1} << 40};
  EXPECT_THAT(Allocate("uniform", problem_), FailsWith("MODEL_TOO_LARGE", HasSubstr("embed")));
  model_.dense.clear();
  model_.units[0].place = Place::Layer(12);
  EXPECT_THAT(Allocate("uniform", problem_), FailsWith("MODEL_INVALID", HasSubstr("layer 12")));
  model_.units.clear();
  EXPECT_THAT(Allocate("uniform", problem_), FailsWith("MODEL_INVALID", HasSubstr("linears")));
  problem_.model = nullptr;
  EXPECT_THAT(Allocate("uniform", problem_), FailsWith("MODEL_INVALID", HasSubstr("linears")));
}

}  // namespace
}  // namespace lwq
