#include <algorithm>
#include <numeric>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/allocator.h"

namespace lwq {
namespace {

using testing::LlamaInventory;
using testing::MenuFor;
using testing::Width;

// Layers at `format` in `allocation`; every unit of a layer must agree.
int LayersAt(const ModelInventory& model, const Allocation& allocation,
             const WeightFormat* format) {
  std::vector<int> units(model.num_layers, 0);
  for (size_t u = 0; u < model.units.size(); ++u) {
    const Place place = model.units[u].place;
    if (place.in_layer() && allocation.plan[u] == format) ++units[place.layer];
  }
  int layers = 0;
  for (int n : units) {
    EXPECT_TRUE(n == 0 || n == 4) << n;
    layers += n == 4;
  }
  return layers;
}

AllocationProblem Problem(const ModelInventory& model, std::vector<int> bits) {
  AllocationProblem problem;
  problem.model = &model;
  problem.menu = MenuFor(model, bits);
  problem.layer_score.resize(model.num_layers);
  std::iota(problem.layer_score.begin(), problem.layer_score.end(), 0);  // the last matters most
  return problem;
}

int64_t DeviceBytes(const AllocationProblem& problem, size_t rung) {
  return MeasurePlan(problem, PlanAtRung(problem, rung));
}

// The paper's rule, k = floor(N (M - M_low) / (M_high - M_low)), at its example's proportions: 32
// layers that take 17 (all low) and 34 (all high) under a budget of 20 give 5.
TEST(TwoLevelTest, FollowsThePapersRuleForEqualLayers) {
  const ModelInventory model = LlamaInventory({.layers = 32});
  AllocationProblem problem = Problem(model, {4, 8});
  problem.budget = {.kind = Budget::Kind::kDeviceBytes, .bytes = 1, .context_length = 1};
  const int64_t low = DeviceBytes(problem, 0), high = DeviceBytes(problem, 1);
  problem.budget.bytes = low + (high - low) * (20 - 17) / (34 - 17);
  LWQ_ASSERT_OK_AND_ASSIGN(Allocation allocation, Allocate("two-level", problem));
  EXPECT_EQ(LayersAt(model, allocation, Width(8)), 5);
  // The five most important.
  for (size_t u = 0; u < model.units.size(); ++u) {
    EXPECT_EQ(allocation.plan[u], Width(model.units[u].place.layer >= 27 ? 8 : 4));
  }
  for (int k = 0; k < 32; ++k) {
    problem.budget.bytes = low + (high - low) * k / 32;
    LWQ_ASSERT_OK_AND_ASSIGN(allocation, Allocate("two-level", problem));
    EXPECT_EQ(LayersAt(model, allocation, Width(8)), k);
    EXPECT_EQ(allocation.plan_bytes, problem.budget.bytes);
    if (k == 0) continue;
    --problem.budget.bytes;  // one byte short of k
    LWQ_ASSERT_OK_AND_ASSIGN(allocation, Allocate("two-level", problem));
    EXPECT_EQ(LayersAt(model, allocation, Width(8)), k - 1);
  }
}

TEST(TwoLevelTest, MixesTheNeighboursOfTheBudget) {
  const ModelInventory model = LlamaInventory({});
  AllocationProblem problem = Problem(model, {2, 3, 4, 8});
  const struct {
    const char* budget;
    int low, high;
  } cases[] = {{"2.5bpw", 2, 3}, {"3.5bpw", 3, 4}, {"5bpw", 4, 8}};
  for (const auto& c : cases) {
    problem.budget = *ParseBudget(c.budget);
    LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("two-level", problem));
    const int at_low = LayersAt(model, allocation, Width(c.low));
    const int at_high = LayersAt(model, allocation, Width(c.high));
    EXPECT_EQ(at_low + at_high, 12) << c.budget;
    EXPECT_GT(at_low, 0) << c.budget;
    EXPECT_GT(at_high, 0) << c.budget;
  }
  problem.budget = *ParseBudget("16bpw");
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation all, Allocate("two-level", problem));
  EXPECT_EQ(LayersAt(model, all, Width(8)), 12);
}

TEST(TwoLevelTest, PromotesTheHeadLast) {
  const ModelInventory model = LlamaInventory({.tied = false});
  AllocationProblem problem = Problem(model, {4, 8});
  problem.budget = {.kind = Budget::Kind::kDeviceBytes, .bytes = 1, .context_length = 1};
  problem.budget.bytes = DeviceBytes(problem, 1) - 1;
  LWQ_ASSERT_OK_AND_ASSIGN(Allocation allocation, Allocate("two-level", problem));
  EXPECT_EQ(LayersAt(model, allocation, Width(8)), 12);
  EXPECT_EQ(allocation.plan.back(), Width(4));
}

TEST(TwoLevelTest, RanksLayersByTheirCostsWithoutScores) {
  const ModelInventory model = LlamaInventory({});
  AllocationProblem problem = Problem(model, {4, 8});
  problem.layer_score.clear();
  problem.cost.assign(model.units.size(), {1.0, 0.5});
  problem.cost[4 * 7 + 2] = {3.0, 0.5};  // one unit of layer 7 suffers most
  problem.budget = {.kind = Budget::Kind::kDeviceBytes, .bytes = 1, .context_length = 1};
  const int64_t low = DeviceBytes(problem, 0), high = DeviceBytes(problem, 1);
  problem.budget.bytes = low + (high - low) / 12;
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("two-level", problem));
  for (size_t u = 0; u < model.units.size(); ++u) {
    EXPECT_EQ(allocation.plan[u], Width(model.units[u].place.layer == 7 ? 8 : 4)) << u;
  }
}

// A layer too big for what is left is passed over, not the end of the walk.
TEST(TwoLevelTest, PassesOverALayerThatDoesNotFit) {
  ModelInventory model = LlamaInventory({});
  for (size_t u = 4 * 11; u < 4 * 12; ++u) {
    for (LinearShape& l : model.units[u].linears) l.out_features *= 4;
  }
  AllocationProblem problem = Problem(model, {4, 8});
  problem.budget = {.kind = Budget::Kind::kDeviceBytes, .bytes = 1, .context_length = 1};
  const int64_t low = DeviceBytes(problem, 0), high = DeviceBytes(problem, 1);
  problem.budget.bytes = low + (high - low) / 15;  // one small layer; the last is four of them
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("two-level", problem));
  for (size_t u = 0; u < model.units.size(); ++u) {
    EXPECT_EQ(allocation.plan[u], Width(model.units[u].place.layer == 10 ? 8 : 4)) << u;
  }
}

}  // namespace
}  // namespace lwq
