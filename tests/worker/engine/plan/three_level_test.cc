#include <numeric>

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;

class ThreeLevelTest : public ::testing::Test {
 protected:
  ThreeLevelTest() : model_(testing::LlamaInventory({})) {
    problem_.model = &model_;
    problem_.menu = testing::MenuFor(model_, {2, 4, 8});
    problem_.layer_score.resize(12);
    std::iota(problem_.layer_score.begin(), problem_.layer_score.end(),
              0);  // the last matters most
  }
  std::vector<int> LayersAt(const Plan& plan, int bits) const {
    std::vector<int> layers;
    for (size_t u = 0; u < plan.size(); u += 4) {
      if (plan[u] == testing::Width(bits)) layers.push_back(static_cast<int>(u / 4));
    }
    return layers;
  }
  ModelInventory model_;
  AllocationProblem problem_;
};

// Equal layers at 8, 4 and 2 bits: two down for each one up, at the size of 4 bits throughout.
TEST_F(ThreeLevelTest, TwoGoDownForEachOneUpAsInThePaper) {
  problem_.budget = {.kind = Budget::Kind::kDeviceBytes, .bytes = 1, .context_length = 1};
  problem_.budget.bytes = MeasurePlan(problem_, PlanAtRung(problem_, 1));
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("three-level", problem_));
  EXPECT_THAT(LayersAt(allocation.plan, 8), ElementsAre(8, 9, 10, 11));
  EXPECT_THAT(LayersAt(allocation.plan, 2), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_LE(allocation.plan_bytes, problem_.budget.bytes);
}

TEST_F(ThreeLevelTest, WhatTheStartLeavesOpenRaisesLayersForNothing) {
  problem_.budget = {.kind = Budget::Kind::kDeviceBytes, .bytes = 1, .context_length = 1};
  const int64_t four = MeasurePlan(problem_, PlanAtRung(problem_, 1));
  const int64_t eight = MeasurePlan(problem_, PlanAtRung(problem_, 2));
  problem_.budget.bytes = four + (eight - four) * 2 / 12;
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("three-level", problem_));
  // Two for nothing; then three more for six: eleven of twelve have moved, one is left at 4 bits.
  EXPECT_THAT(LayersAt(allocation.plan, 8), ElementsAre(7, 8, 9, 10, 11));
  EXPECT_THAT(LayersAt(allocation.plan, 2), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(LayersAt(allocation.plan, 4), ElementsAre(6));
}

TEST_F(ThreeLevelTest, AtTheEndsOfTheMenuItIsTwoLevel) {
  for (const char* budget : {"2.5bpw", "16bpw"}) {
    problem_.budget = *ParseBudget(budget);
    LWQ_ASSERT_OK_AND_ASSIGN(const Allocation three, Allocate("three-level", problem_));
    LWQ_ASSERT_OK_AND_ASSIGN(const Allocation two, Allocate("two-level", problem_));
    EXPECT_EQ(three.plan, two.plan) << budget;
  }
}

}  // namespace
}  // namespace lwq
