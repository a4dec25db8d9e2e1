// What the patterns match is tested where they are used: quantization_config_test.cc and
// gptq_config_test.cc.
#include "worker/engine/artifact/module_patterns.h"

#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;

TEST(ModulePatternsTest, OneForEveryKindOfUnitAndModulesOutsideTheLayersByName) {
  const ModelInventory model = testing::LlamaInventory({.layers = 3, .tied = false});
  const ModulePatterns found = PatternsOf(model, [](size_t u) { return u % 4 != 2 && u != 1; });
  EXPECT_THAT(
      found.patterns,
      ElementsAre(
          R"(^(?:.*\.)?layers\.(?:0|1|2)\.self_attn\.(?:q_proj|k_proj|v_proj|qkv_proj)$)",
          R"(^(?:.*\.)?layers\.(?:0|1|2)\.mlp\.down_proj$)",
          R"(^(?:.*\.)?layers\.(?:1|2)\.self_attn\.o_proj$)"));
  EXPECT_THAT(found.modules, ElementsAre("lm_head"));
}

TEST(ModulePatternsTest, RoutersAreTheMatricesOfLayers) {
  ModelInventory model = testing::LlamaInventory({.layers = 1});
  EXPECT_TRUE(RouterModules(model).empty());
  model.dense.push_back(
      {{"model.layers.0.mlp.gate.weight", DType::kBF16, {4, 256}}, Place::Layer(0), ""});
  EXPECT_THAT(RouterModules(model), ElementsAre("model.layers.0.mlp.gate"));
}

TEST(ModulePatternsTest, DotsAreMeant) { EXPECT_EQ(EscapeRegex("a.b"), "a\\.b"); }

}  // namespace
}  // namespace lwq
