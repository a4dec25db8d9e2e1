// Layers that are left out: the others take their places and names, and nothing else changes.
#include "worker/engine/plan/kept_layers.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class KeptLayersTest : public ::testing::Test {
 protected:
  KeptLayersTest() : model_(testing::LlamaInventory({.layers = 4, .tied = false})) {
    for (const AllocationUnit& unit : model_.units) {
      plan_.push_back(testing::Width(unit.place == Place::Layer(2) ? 4 : 16));
    }
  }
  void Drop(int layer) {
    SetUnits(model_, Place::Layer(layer), Plan(plan_.size(), nullptr), plan_);
  }
  ModelInventory model_;
  Plan plan_;
};

TEST_F(KeptLayersTest, APlanThatDropsNothingIsTheModel) {
  EXPECT_FALSE(DropsLayers(model_, plan_));
  EXPECT_OK(CheckKept(model_, plan_));
  const KeptModel kept = KeepLayers(model_, plan_);
  EXPECT_THAT(kept.layers, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(kept.plan, plan_);
  EXPECT_TRUE(kept.source_names.empty());
}

TEST_F(KeptLayersTest, WhatIsKeptClosesRanks) {
  Drop(1);
  ASSERT_OK(CheckKept(model_, plan_));
  const KeptModel kept = KeepLayers(model_, plan_);
  EXPECT_THAT(kept.layers, ElementsAre(0, 2, 3));
  EXPECT_EQ(kept.model.num_layers, 3);
  ASSERT_EQ(kept.model.units.size(), 13u);
  EXPECT_EQ(kept.model.units.back().place, Place::Head());
  // The artifact's layer 1 is the source's 2, and in its format.
  EXPECT_EQ(kept.model.units[4].name, "layers.1.self_attn.qkv_proj");
  EXPECT_EQ(kept.model.units[4].place, Place::Layer(1));
  EXPECT_EQ(kept.plan[4], testing::Width(4));
  EXPECT_EQ(kept.plan[8], DenseFormat());
  EXPECT_EQ(kept.InSource("model.layers.1.self_attn.k_proj"), "model.layers.2.self_attn.k_proj");
  EXPECT_EQ(kept.InSource("model.layers.1.self_attn.k_proj.weight"),
            "model.layers.2.self_attn.k_proj.weight");
  EXPECT_EQ(kept.InSource("model.layers.2.input_layernorm.weight"),
            "model.layers.3.input_layernorm.weight");
  EXPECT_EQ(kept.InSource("model.layers.0.input_layernorm.weight"),
            "model.layers.0.input_layernorm.weight");
  EXPECT_EQ(kept.InSource("lm_head"), "lm_head");
  EXPECT_EQ(kept.model.dense.size(), model_.dense.size() - 2);
}

// As a model that was made with so many layers.
TEST_F(KeptLayersTest, TheFilesAreThoseOfASmallerModel) {
  Drop(1);
  Drop(3);
  const ModelInventory small = testing::LlamaInventory({.layers = 2, .tied = false});
  Plan plan;
  for (const AllocationUnit& unit : small.units) {
    plan.push_back(testing::Width(unit.place == Place::Layer(1) ? 4 : 16));
  }
  const CheckpointLayout expected = LayOutArtifact(small, plan, 0);
  const CheckpointLayout found = LayOutArtifact(model_, plan_, 0);
  ASSERT_EQ(found.files.size(), 1u);
  EXPECT_EQ(found.weight_bytes, expected.weight_bytes);
  EXPECT_EQ(found.files[0].layout.header, expected.files[0].layout.header);
}

// Neither weights nor norms nor cache of a layer that is not there.
TEST_F(KeptLayersTest, ADevicesMemoryHoldsWhatIsKept) {
  AllocationProblem problem, smaller;
  const ModelInventory small = testing::LlamaInventory({.layers = 2, .tied = false});
  Drop(1);
  Drop(3);
  Plan plan;
  for (const AllocationUnit& unit : small.units) {
    plan.push_back(testing::Width(unit.place == Place::Layer(1) ? 4 : 16));
  }
  problem.model = &model_;
  smaller.model = &small;
  for (AllocationProblem* one : {&problem, &smaller}) {
    one->menu = testing::MenuFor(*one->model, {4, 16});
    one->budget = *ParseBudget("1GB@512x2");
  }
  EXPECT_EQ(MeasurePlan(problem, plan_), MeasurePlan(smaller, plan));
}

TEST_F(KeptLayersTest, WhatIsNoSmallerModelIsRefused) {
  Plan half = plan_;
  half[5] = nullptr;
  EXPECT_THAT(CheckKept(model_, half), FailsWith("PLAN_MISMATCH", HasSubstr("other units")));
  Plan headless = plan_;
  headless.back() = nullptr;
  EXPECT_THAT(CheckKept(model_, headless), FailsWith("PLAN_MISMATCH", HasSubstr("lm_head")));
  for (int layer : {0, 1, 2, 3}) Drop(layer);
  EXPECT_THAT(CheckKept(model_, plan_), FailsWith("PLAN_MISMATCH", HasSubstr("none")));
}

TEST_F(KeptLayersTest, LayersThatDifferCannotBeRenumbered) {
  model_.units[9].linears[0].out_features *= 2;
  EXPECT_OK(CheckKept(model_, plan_));
  Drop(1);
  EXPECT_THAT(CheckKept(model_, plan_), FailsWith("PLAN_MISMATCH", HasSubstr("layer 2")));
}

}  // namespace
}  // namespace lwq
