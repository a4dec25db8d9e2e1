#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/allocation_measure.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/engine/plan/kept_layers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DropTest : public ::testing::Test {
 protected:
  DropTest() : model_(testing::LlamaInventory({.layers = 6})) {
    problem_.model = &model_;
    problem_.menu = testing::MenuFor(model_, {4, 16});
    problem_.layer_score = {5, 1, 3, 0, 4, 2};
    problem_.budget = {.kind = Budget::Kind::kFileBytes, .bytes = 1};
  }
  // The most that `layers` of the six need.
  void HoldLayers(int layers) {
    Plan plan = PlanAtRung(problem_, 1);
    for (int layer = layers; layer < 6; ++layer) {
      SetUnits(model_, Place::Layer(layer), Plan(plan.size(), nullptr), plan);
    }
    problem_.budget.bytes = MeasurePlan(problem_, plan);
  }
  std::vector<int> Kept() {
    const auto allocation = Allocate("drop", problem_);
    EXPECT_OK(allocation.status());
    if (!allocation.ok()) return {};
    EXPECT_LE(allocation->plan_bytes, problem_.budget.bytes);
    for (size_t u = 0; u < allocation->plan.size(); ++u) {
      EXPECT_TRUE(allocation->plan[u] == nullptr || allocation->plan[u]->dense());
    }
    explanation_ = allocation->explanation;
    return KeptLayers(model_, allocation->plan);
  }
  ModelInventory model_;
  AllocationProblem problem_;
  std::string explanation_;
};

TEST_F(DropTest, TheLeastImportantGoUntilTheRestFits) {
  HoldLayers(6);
  EXPECT_THAT(Kept(), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(explanation_, HasSubstr("No layer has to go"));
  HoldLayers(4);
  EXPECT_THAT(Kept(), ElementsAre(0, 2, 4, 5));
  EXPECT_THAT(explanation_, HasSubstr("Layers 1, 3 of 6 are left out"));
  --problem_.budget.bytes;  // one byte less: one layer less
  EXPECT_THAT(Kept(), ElementsAre(0, 2, 4));
}

TEST_F(DropTest, ByDepthTheLastLayerStays) {
  const AllocatorDef* def = *FindAllocator("drop");
  problem_.options = *OptionValues::Make("drop", def->options, {{"order", "depth"}});
  HoldLayers(4);
  EXPECT_THAT(Kept(), ElementsAre(0, 1, 2, 5));
}

// Eight bits in every layer are over the budget, and three layers of them are not.
TEST_F(DropTest, ABudgetThatNoPlanOfAllLayersMeetsIsMetByFewer) {
  problem_.menu = testing::MenuFor(model_, {8, 16});
  Plan plan = PlanAtRung(problem_, 0);
  const Plan absent(plan.size(), nullptr);
  for (int layer = 3; layer < 6; ++layer) SetUnits(model_, Place::Layer(layer), absent, plan);
  problem_.budget.bytes = MeasurePlan(problem_, plan);
  ASSERT_LT(problem_.budget.bytes, MeasurePlan(problem_, SmallestPlan(problem_)));
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation allocation, Allocate("drop", problem_));
  EXPECT_LE(allocation.plan_bytes, problem_.budget.bytes);
  EXPECT_LT(KeptLayers(model_, allocation.plan).size(), 6u);

  for (int layer = 1; layer < 3; ++layer) SetUnits(model_, Place::Layer(layer), absent, plan);
  const int64_t one_layer = MeasurePlan(problem_, plan);
  problem_.budget.bytes = one_layer;
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation smallest, Allocate("drop", problem_));
  EXPECT_EQ(smallest.plan_bytes, one_layer);
  --problem_.budget.bytes;
  EXPECT_THAT(Allocate("drop", problem_),
              FailsWith("BUDGET_INFEASIBLE", HasSubstr(absl::StrCat("takes ", one_layer))));
}

TEST_F(DropTest, WhatCannotLoseALayerIsRefused) {
  HoldLayers(4);
  model_.artifact_format = &ArtifactFormatDefs::gguf;
  EXPECT_THAT(Allocate("drop", problem_), FailsWith("FORMAT_UNSUPPORTED", HasSubstr("gguf")));
  model_.artifact_format = DefaultArtifactFormat();
  model_.units[9].linears[0].out_features *= 2;
  EXPECT_THAT(Allocate("drop", problem_), FailsWith("FORMAT_UNSUPPORTED", HasSubstr("renumber")));
}

}  // namespace
}  // namespace lwq
