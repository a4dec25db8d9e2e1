#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;

class RangesTest : public ::testing::Test {
 protected:
  RangesTest() : model_(testing::LlamaInventory({.tied = false})) {
    problem_.model = &model_;
    problem_.menu = testing::MenuFor(model_, {4, 8});
    problem_.budget = {.kind = Budget::Kind::kDeviceBytes, .bytes = 1, .context_length = 1};
  }
  // A budget at which `layers` of the twelve have to be at 4 bits.
  void LeaveSmall(int layers) {
    const int64_t low = MeasurePlan(problem_, PlanAtRung(problem_, 0));
    const int64_t high = MeasurePlan(problem_, PlanAtRung(problem_, 1));
    // The head counts as it stands.
    Plan all = PlanAtRung(problem_, 0);
    all.back() = PlanAtRung(problem_, 1).back();
    const int64_t layer = (high - MeasurePlan(problem_, all)) / 12;
    problem_.budget.bytes = high - layers * layer;
    ASSERT_GE(problem_.budget.bytes, low);
  }
  std::vector<int> SmallLayers(const Plan& plan) const {
    std::vector<int> layers;
    for (size_t u = 0; u + 1 < plan.size(); u += 4) {
      if (plan[u] == testing::Width(4)) layers.push_back(static_cast<int>(u / 4));
    }
    return layers;
  }
  ModelInventory model_;
  AllocationProblem problem_;
};

TEST_F(RangesTest, TheRunThatMattersLeastIsSmall) {
  problem_.layer_score = {9, 8, 7, 1, 0, 1, 6, 0, 5, 4, 9, 9};
  LeaveSmall(3);
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("ranges", problem_));
  EXPECT_THAT(SmallLayers(allocation.plan), ElementsAre(3, 4, 5));
  EXPECT_EQ(allocation.plan_bytes, problem_.budget.bytes);
  --problem_.budget.bytes;  // one byte less: one layer more
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation less, Allocate("ranges", problem_));
  EXPECT_EQ(SmallLayers(less.plan).size(), 4u);
}

TEST_F(RangesTest, EverythingIsLargeWhereItFits) {
  problem_.layer_score.assign(12, 1);
  LeaveSmall(0);
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("ranges", problem_));
  EXPECT_THAT(SmallLayers(allocation.plan), ElementsAre());
}

// A budget just above every layer at the smaller format holds the head at the larger.
TEST_F(RangesTest, WhereEveryLayerIsSmallTheHeadMayBeLarge) {
  problem_.layer_score.assign(12, 1);
  LeaveSmall(12);
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("ranges", problem_));
  EXPECT_EQ(allocation.plan_bytes, problem_.budget.bytes);
  EXPECT_EQ(allocation.plan.back(), testing::Width(8));
  --problem_.budget.bytes;
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation less, Allocate("ranges", problem_));
  EXPECT_EQ(less.plan.back(), testing::Width(4));
  EXPECT_THAT(less.explanation, ::testing::HasSubstr("Every unit is"));
}

// Any third of equal layers takes the same bytes.
TEST_F(RangesTest, RunsOfOneLengthTakeTheSameBytes) {
  int64_t bytes = 0;
  for (int first : {0, 4, 8}) {
    problem_.layer_score.assign(12, 1);
    for (int l = first; l < first + 4; ++l) problem_.layer_score[static_cast<size_t>(l)] = 0;
    LeaveSmall(4);
    LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("ranges", problem_));
    EXPECT_THAT(SmallLayers(allocation.plan), ElementsAre(first, first + 1, first + 2, first + 3));
    if (bytes == 0) bytes = allocation.plan_bytes;
    EXPECT_EQ(allocation.plan_bytes, bytes);
  }
}

}  // namespace
}  // namespace lwq
