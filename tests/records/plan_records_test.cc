#include "records/plan_records.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

TEST(PlanRecordsTest, AnInventoryComesBackAsItWas) {
  const ModelInventory model = testing::LlamaInventory({.layers = 2, .tied = false});
  LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory back, InventoryOf(InventoryToProto(model)));
  // All that a plan's bytes follow from, and the sizes that forecasts read.
  const Plan plan(model.units.size(), testing::Width(4));
  EXPECT_EQ(LayOutArtifact(back, plan, 100'000).index_json,
            LayOutArtifact(model, plan, 100'000).index_json);
  EXPECT_EQ(InventoryToProto(back).SerializeAsString(),
            InventoryToProto(model).SerializeAsString());
  EXPECT_EQ(back.vocab_size, 4096);
  EXPECT_EQ(back.num_kv_heads, 2);
  EXPECT_EQ(back.max_positions, 2048);
  v1::Inventory unknown = InventoryToProto(model);
  unknown.set_weight_dtype("INT3");
  EXPECT_THAT(InventoryOf(unknown), FailsWith("DTYPE_UNKNOWN", HasSubstr("INT3")));
}

TEST(PlanRecordsTest, LinearsKeepTheirRolesAndInputs) {
  using enum LinearRole;
  ModelInventory model = testing::LlamaInventory({.layers = 1});
  std::vector<LinearShape>& linears = model.units[0].linears;
  linears.resize(12, linears[0]);
  for (int role = 0; role < 12; ++role) {
    linears[static_cast<size_t>(role)].role = static_cast<LinearRole>(role);
    linears[static_cast<size_t>(role)].input = absl::StrCat("input ", role);
  }
  ASSERT_EQ(linears.back().role, kEmbedding);  // the last there is
  LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory back, InventoryOf(InventoryToProto(model)));
  ASSERT_EQ(back.units[0].linears.size(), linears.size());
  for (size_t i = 0; i < linears.size(); ++i) {
    EXPECT_EQ(back.units[0].linears[i].role, linears[i].role);
    EXPECT_EQ(back.units[0].linears[i].input, linears[i].input);
  }
}

// Of a model that was registered before there were roles, or by a version that knows more of them.
TEST(PlanRecordsTest, AnInventoryWithoutRolesIsReadAndItsRecipesAreRefused) {
  ModelInventory model = testing::LlamaInventory({.layers = 2});
  model.gguf_other_bytes = 1;
  v1::Inventory earlier = InventoryToProto(model);
  for (v1::InventoryUnit& unit : *earlier.mutable_units()) {
    for (v1::InventoryLinear& linear : *unit.mutable_linears()) {
      linear.set_role(static_cast<v1::LinearRole>(unit.layer() == 0 ? 0 : 99));
      linear.clear_input();
    }
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory read, InventoryOf(earlier));
  EXPECT_EQ(read.units[0].linears[0].role, LinearRole::kUnknown);
  EXPECT_EQ(read.units.back().linears[0].role, LinearRole::kUnknown);
  v1::QuantizeSpec spec;
  spec.set_profile("llama.cpp");
  spec.mutable_budget()->set_recipe("Q4_K_M");
  LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory planned, InventoryFor(spec, read));
  EXPECT_THAT(BudgetOf(spec.budget(), planned),
              FailsWith("MODEL_INVALID", HasSubstr("layers.0.self_attn.q_proj")));
  spec.mutable_budget()->set_bits_per_weight(4);
  EXPECT_OK(BudgetOf(spec.budget(), planned));
}

TEST(PlanRecordsTest, APlanComesBackAsItWas) {
  const ModelInventory model = testing::LlamaInventory({.layers = 2});
  Plan plan(model.units.size(), DenseFormat());
  plan[1] = testing::Width(3, 64);
  plan[2] = GridFormat::Find(8, 0, /*symmetric=*/false);
  for (size_t u = 4; u < 8; ++u) plan[u] = nullptr;  // the second layer is left out
  v1::PlanSummary proto = PlanToProto(plan, model);
  EXPECT_EQ(proto.units(1).format(), "int3-g64");
  EXPECT_EQ(proto.units(7).format(), "");
  LWQ_ASSERT_OK_AND_ASSIGN(const Plan back, PlanOf(proto, model));
  EXPECT_EQ(back, plan);
  proto.mutable_units(1)->set_format("int3");
  EXPECT_THAT(PlanOf(proto, model), FailsWith("FORMAT_UNKNOWN", HasSubstr("int3")));
  proto.mutable_units(1)->set_unit("layers.9.mlp.down_proj");
  EXPECT_THAT(PlanOf(proto, model), FailsWith("PLAN_MISMATCH", HasSubstr("layers.9")));
  proto.mutable_units()->RemoveLast();
  EXPECT_THAT(PlanOf(proto, model), FailsWith("PLAN_MISMATCH", HasSubstr("7 units")));
}

TEST(PlanRecordsTest, TheMenuIsTheJobsAndItsProductsLeaveOutTheSourcesOwn) {
  const ModelInventory model = testing::LlamaInventory({.layers = 1, .tied = false});
  v1::QuantizeSpec spec;
  spec.set_profile("vllm-lowbit");
  spec.add_formats("int8");
  spec.add_formats("dense");
  spec.add_group_sizes(64);
  spec.set_asymmetric(true);
  LWQ_ASSERT_OK_AND_ASSIGN(const Menu menu, MenuOf(spec, model));
  const auto products = QuantizedFormats(menu, model);
  ASSERT_EQ(products.size(), 1u);  // the head stays as it is
  const std::vector<v1::UnitFormats>& layer = products.at(0);
  ASSERT_EQ(layer.size(), 4u);
  EXPECT_EQ(layer[3].unit(), "layers.0.mlp.down_proj");
  EXPECT_THAT(layer[3].formats(), ::testing::ElementsAre("int8-g64-asym"));
  spec.set_profile("vllm");
  EXPECT_THAT(MenuOf(spec, model), FailsWith("PROFILE_UNKNOWN", HasSubstr("vllm-lowbit")));
}

TEST(PlanRecordsTest, BudgetsWithoutSenseAreRefused) {
  const ModelInventory model = testing::LlamaInventory({});
  v1::Budget budget;
  EXPECT_THAT(BudgetOf(budget, model), FailsWith("BUDGET_INVALID", HasSubstr("no budget")));
  budget.set_bits_per_weight(65);
  EXPECT_THAT(BudgetOf(budget, model), FailsWith("BUDGET_INVALID", HasSubstr("65")));
  budget.set_file_bytes(-1);
  EXPECT_THAT(BudgetOf(budget, model), FailsWith("BUDGET_INVALID", HasSubstr("-1")));
  budget.set_bits_per_weight(3.25);
  LWQ_ASSERT_OK_AND_ASSIGN(const Budget bits, BudgetOf(budget, model));
  EXPECT_EQ(bits.kind, Budget::Kind::kBitsPerWeight);
  EXPECT_EQ(bits.bits_per_weight, 3.25);
}

TEST(PlanRecordsTest, ARecipeIsTheBytesOfItsFile) {
  ModelInventory model = testing::LlamaInventory({});
  model.gguf_other_bytes = 100'000;
  v1::QuantizeSpec spec;
  spec.set_profile("llama.cpp");
  spec.mutable_budget()->set_recipe("Q4_K_M");
  LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory planned, InventoryFor(spec, model));
  LWQ_ASSERT_OK_AND_ASSIGN(const Budget budget, BudgetOf(spec.budget(), planned));
  EXPECT_EQ(budget.kind, Budget::Kind::kFileBytes);
  EXPECT_EQ(budget.bytes, 100'000 + 6'648'064 - 124'672);  // gguf_recipe_test.cc
  EXPECT_THAT(BudgetOf(spec.budget(), model), FailsWith("BUDGET_INVALID", HasSubstr("llama.cpp")));
}

TEST(PlanRecordsTest, APlanSaysWhatItsUnitsAreFor) {
  ModelInventory model = testing::LlamaInventory({.layers = 1});
  model.gguf_other_bytes = 1;
  const ModelInventory planned = PlannedAs(ArtifactFormatDefs::gguf, model);
  const Plan plan(planned.units.size(), DenseFormat());
  const v1::PlanSummary proto = PlanToProto(plan, planned);
  EXPECT_EQ(proto.artifact_format(), "gguf");
  EXPECT_EQ(proto.units(0).unit(), "embed_tokens");
  EXPECT_EQ(PlaceOfRecord(proto.units(0).layer()), Place::Embedding());
  LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory again, InventoryFor(proto, model));
  EXPECT_OK(PlanOf(proto, again));
  EXPECT_THAT(PlanOf(proto, model), FailsWith("PLAN_MISMATCH", HasSubstr("units")));
  LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory stored, InventoryOf(InventoryToProto(model)));
  EXPECT_EQ(stored.gguf_other_bytes, 1);
}

}  // namespace
}  // namespace lwq
