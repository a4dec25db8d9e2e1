#include "worker/engine/plan/gguf_recipe.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

int64_t Bytes(const ModelInventory& model, const std::string& recipe) {
  const ModelInventory planned = PlannedAs(ArtifactFormatDefs::gguf, model);
  const auto plan = GgufRecipePlan(planned, recipe);
  EXPECT_OK(plan);
  return plan.ok() ? WeightFileBytes(planned, *plan, 0) : 0;
}

// Sizes of files that llama-quantize made with an importance matrix. Header and norms are the same
// in all files of a model, so all exceed the units' tensors by as much.
TEST(GgufRecipeTest, FilesOfTheBundledModelHaveLlamaCppsSizes) {
  const ModelInventory model = testing::LlamaInventory({});
  const std::map<std::string, int64_t> files = {
      {"Q2_K", 4'440'832},   {"IQ3_S", 5'039'872},  {"Q3_K_M", 5'518'080}, {"IQ4_XS", 5'998'336},
      {"Q4_K_S", 6'334'208}, {"Q4_K_M", 6'648'064}, {"Q5_K_M", 7'655'680}, {"Q6_K", 8'726'272}};
  for (const auto& [recipe, bytes] : files)
    EXPECT_EQ(bytes - Bytes(model, recipe), 124'672) << recipe;
}

// SmolLM2-135M: 576 inputs are no multiple of 256, so most types are stood in for.
TEST(GgufRecipeTest, RowsThatAreNotWholeBlocksTakeTheTypesThatStandIn) {
  const ModelInventory model = testing::LlamaInventory({.layers = 30,
                                                        .hidden = 576,
                                                        .intermediate = 1536,
                                                        .heads = 9,
                                                        .kv_heads = 3,
                                                        .vocab = 49152});
  const std::map<std::string, int64_t> files = {{"IQ4_XS", 90'897'472},
                                                {"Q3_K_M", 93'510'208},
                                                {"Q4_K_M", 105'454'144},
                                                {"Q5_K_M", 112'103'488}};
  for (const auto& [recipe, bytes] : files) {
    EXPECT_EQ(bytes - Bytes(model, recipe), 1'926'208) << recipe;
  }
}

TEST(GgufRecipeTest, AnUntiedHeadTakesTheBestTypeAndTheEmbeddingThePlainOne) {
  const ModelInventory planned =
      PlannedAs(ArtifactFormatDefs::gguf, testing::LlamaInventory({.layers = 1, .tied = false}));
  LWQ_ASSERT_OK_AND_ASSIGN(const Plan plan, GgufRecipePlan(planned, "Q4_K_M"));
  EXPECT_EQ(plan.front()->id(), "gguf-q4_k");
  EXPECT_EQ(plan.back()->id(), "gguf-q6_k");
}

// As llama.cpp does in Llama 2 and 3 of 70B: of 80 layers, eight heads to a value.
TEST(GgufRecipeTest, ValuesOfTheLargestModelsTakeMore) {
  const auto values = [](int layers, const char* recipe) {
    const ModelInventory planned =
        PlannedAs(ArtifactFormatDefs::gguf,
                  testing::LlamaInventory({.layers = layers, .heads = 8, .kv_heads = 1}));
    const Plan plan = *GgufRecipePlan(planned, recipe);
    std::map<std::string, int> found;
    for (size_t u = 0; u < plan.size(); ++u) {
      if (planned.units[u].kind == "self_attn.v_proj") ++found[std::string(plan[u]->id())];
    }
    return found;
  };
  using Types = std::map<std::string, int>;
  EXPECT_EQ(values(80, "Q4_K_M"), (Types{{"gguf-q5_k", 40}, {"gguf-q6_k", 40}}));
  EXPECT_EQ(values(80, "Q3_K_S"), (Types{{"gguf-q5_k", 80}}));
  EXPECT_EQ(values(80, "Q6_K"), (Types{{"gguf-q6_k", 80}}));
  EXPECT_EQ(values(79, "Q3_K_S"), (Types{{"gguf-q3_k", 79}}));
}

// As llama.cpp does in Mixtral, whose attention is a small part of it.
TEST(GgufRecipeTest, AttentionBesideEightExpertsTakesMore) {
  const auto types = [](int num_experts, const char* recipe) {
    ModelInventory model = PlannedAs(ArtifactFormatDefs::gguf, testing::LlamaInventory({}));
    for (AllocationUnit& unit : model.units) {
      if (unit.kind == "mlp.down_proj") {
        unit.linears.resize(static_cast<size_t>(num_experts), unit.linears.front());
      }
    }
    const Plan plan = *GgufRecipePlan(model, recipe);
    std::map<std::string, std::string> of_kind;
    for (size_t u = 0; u < plan.size(); ++u) {
      if (model.units[u].place == Place::Layer(6)) of_kind[model.units[u].kind] = plan[u]->id();
    }
    return of_kind;
  };
  for (const char* recipe : {"Q2_K", "Q3_K_S", "Q4_K_M", "Q6_K"}) {
    EXPECT_EQ(types(8, recipe)["self_attn.k_proj"], "gguf-q8_0") << recipe;
    EXPECT_EQ(types(8, recipe)["self_attn.v_proj"], "gguf-q8_0") << recipe;
    EXPECT_NE(types(16, recipe)["self_attn.k_proj"], "gguf-q8_0") << recipe;
  }
  EXPECT_EQ(types(8, "Q4_K_M")["self_attn.o_proj"], "gguf-q5_k");
  EXPECT_EQ(types(16, "Q4_K_M")["self_attn.o_proj"], "gguf-q4_k");
  EXPECT_EQ(types(8, "Q3_K_L")["self_attn.o_proj"], "gguf-q3_k");
  EXPECT_EQ(types(16, "Q3_K_L")["self_attn.o_proj"], "gguf-q5_k");
  EXPECT_EQ(types(8, "Q4_K_M")["self_attn.q_proj"], "gguf-q4_k");
}

// Mixtral's experts are w1, w2 and w3: what a tensor is, its role says.
TEST(GgufRecipeTest, TypesGoByRolesAndNotByNames) {
  ModelInventory model = testing::LlamaInventory({});
  const int64_t bytes = Bytes(model, "Q4_K_M");
  for (AllocationUnit& unit : model.units) {
    int number = 0;
    for (LinearShape& linear : unit.linears) {
      linear.name = linear.module = absl::StrCat("w", ++number);
    }
  }
  EXPECT_EQ(Bytes(model, "Q4_K_M"), bytes);
  for (AllocationUnit& unit : model.units) unit.linears.front().role = LinearRole::kUp;
  EXPECT_LT(Bytes(model, "Q4_K_M"), bytes);  // of down, too, no more than of the others
}

TEST(GgufRecipeTest, UnknownRecipesAreRefusedWithTheKnownOnes) {
  const ModelInventory planned =
      PlannedAs(ArtifactFormatDefs::gguf, testing::LlamaInventory({.layers = 1}));
  for (const std::string& name : GgufRecipeNames()) EXPECT_OK(GgufRecipePlan(planned, name));
  EXPECT_THAT(GgufRecipePlan(planned, "Q9_K"), FailsWith("BUDGET_INVALID", HasSubstr("Q4_K_M")));
}

}  // namespace
}  // namespace lwq
