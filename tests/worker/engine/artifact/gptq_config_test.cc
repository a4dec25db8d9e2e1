#include "worker/engine/artifact/gptq_config.h"

#include <regex>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/artifact/gptq.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

const GridFormat* Int(int bits, int64_t group_size, bool symmetric = true) {
  return GridFormat::Find(bits, group_size, symmetric);
}

ModelInventory Model(int layers, bool tied) {
  return PlannedAs(ArtifactFormatDefs::gptq,
                   testing::LlamaInventory({.layers = layers, .tied = tied}));
}

// What GPTQModel makes of a module (artifact-formats B.6): negative rules first, then the others in
// order, each anchored at the start. "dense", or width and group size.
std::string Resolve(const Json& config, const std::string& module) {
  const Json rules = config.value("dynamic", Json::object());
  for (const char* sign : {"-:", "+:"}) {
    for (const auto& rule : rules.items()) {
      if (rule.key().rfind(sign, 0) != 0) continue;
      if (!std::regex_search(module, std::regex(rule.key().substr(2)))) continue;
      if (sign[0] == '-') return "dense";
      return absl::StrCat(rule.value()["bits"].get<int>(), " ",
                          rule.value()["group_size"].get<int>());
    }
  }
  return absl::StrCat(config["bits"].get<int>(), " ", config["group_size"].get<int>());
}

TEST(GptqConfigTest, EveryLinearAndFusedNameGetsItsFormat) {
  const ModelInventory model = Model(12, true);
  const WeightFormat* const cycle[] = {Int(4, 128), DenseFormat(), Int(2, 64), Int(8, 0),
                                       Int(4, 128)};
  const std::vector<std::string> expected = {"4 128", "dense", "2 64", "8 -1", "4 128"};
  Plan plan;
  for (size_t u = 0; u < model.units.size(); ++u) plan.push_back(cycle[u % 5]);
  const Json config = Json::parse(GptqConfigJson(model, plan));
  EXPECT_EQ(config["bits"], 4);
  for (size_t u = 0; u < model.units.size(); ++u) {
    std::vector<std::string> modules = {"model." + model.units[u].name};
    for (const LinearShape& linear : model.units[u].linears) {
      modules.push_back(linear.module);
      modules.push_back("language_model." + linear.module);
    }
    for (const std::string& module : modules) {
      EXPECT_EQ(Resolve(config, module), expected[u % 5]) << module;
    }
  }
}

TEST(GptqConfigTest, IsTheDictionaryOfTheDocumentation) {
  const ModelInventory model = Model(2, true);
  Plan plan(model.units.size(), Int(4, 128));
  plan[0] = DenseFormat();
  plan[6] = Int(8, 128);
  EXPECT_EQ(
      GptqConfigJson(model, plan),
      R"({"quant_method":"gptq","checkpoint_format":"gptq","bits":4,"group_size":128,"sym":true,)"
      R"("desc_act":false,"lm_head":false,"pack_dtype":"int32","dynamic":{)"
      R"("-:^(?:.*\\.)?layers\\.(?:0)\\.self_attn\\.(?:q_proj|k_proj|v_proj|qkv_proj)$":{},)"
      R"("+:^(?:.*\\.)?layers\\.(?:1)\\.mlp\\.(?:gate_proj|up_proj|gate_up_proj)$":)"
      R"({"bits":8,"group_size":128}}})");
}

// vLLM refuses a base of other than 4 or 8 bits, transformers any rule.
TEST(GptqConfigTest, TheBaseIsOfFourOrEightBitsOrTheOnlyOne) {
  const ModelInventory model = Model(1, true);
  const auto base = [&](const Plan& plan) {
    const Json config = Json::parse(GptqConfigJson(model, plan));
    return absl::StrCat(config["bits"].get<int>(), " ", config["group_size"].get<int>(),
                        config.contains("dynamic") ? " and rules" : "");
  };
  EXPECT_EQ(base(Plan(4, Int(3, 64))), "3 64");
  EXPECT_EQ(base({Int(2, 64), Int(2, 64), Int(2, 64), Int(3, 64)}), "4 128 and rules");
  EXPECT_EQ(base({Int(2, 64), Int(8, 32), Int(2, 64), Int(4, 0)}), "4 -1 and rules");
  EXPECT_EQ(GptqConfigJson(model, Plan(4, DenseFormat())), "");
}

TEST(GptqConfigTest, TheHeadIsNamedWhereItIsQuantized) {
  const ModelInventory model = Model(1, false);
  Plan plan(5, Int(4, 64));
  plan.back() = DenseFormat();
  Json config = Json::parse(GptqConfigJson(model, plan));
  EXPECT_EQ(config["lm_head"], false);
  EXPECT_EQ(Resolve(config, "lm_head"), "dense");
  plan.back() = Int(8, 32);
  config = Json::parse(GptqConfigJson(model, plan));
  EXPECT_EQ(config["lm_head"], true);
  EXPECT_EQ(Resolve(config, "lm_head"), "8 32");
  EXPECT_EQ(Resolve(config, "model.layers.0.mlp.down_proj"), "4 64");
}

TEST(GptqConfigTest, WhatIsWrittenIsRead) {
  const ModelInventory model = Model(1, true);
  LWQ_ASSERT_OK_AND_ASSIGN(
      const DeclaredQuantization read,
      ReadGptqConfig(
          GptqConfigJson(model, {Int(2, 64), Int(4, 128), DenseFormat(), Int(8, 0)}), "c"));
  EXPECT_EQ(read.coding, &GptqCoding());
  EXPECT_THAT(read.formats, ElementsAre(Int(8, 0), Int(2, 64), Int(4, 128)));
}

TEST(GptqConfigTest, OtherToolsDictionariesAreRead) {
  const auto read = [](const char* text) { return ReadGptqConfig(text, "c"); };
  // AutoGPTQ's.
  LWQ_ASSERT_OK_AND_ASSIGN(
      DeclaredQuantization old,
      read(R"({"bits":4,"group_size":-1,"damp_percent":0.01,"desc_act":false,"sym":false,)"
           R"("true_sequential":true,"model_file_base_name":"model"})"));
  EXPECT_EQ(old.coding, &GptqCoding());
  EXPECT_THAT(old.formats, ElementsAre(Int(4, 0, false)));
  // GPTQModel's: a bare rule is a positive one, and says only what differs.
  LWQ_ASSERT_OK_AND_ASSIGN(
      DeclaredQuantization recent,
      read(R"({"bits":4,"group_size":32,"format":"gptq_v2","pack_dtype":"int32","dynamic":)"
           R"({".*down.*":{"bits":8},"+:.*up.*":{"group_size":64,"sym":false},"-:.*gate.*":{}}})"));
  EXPECT_EQ(recent.coding, &GptqV2Coding());
  EXPECT_THAT(recent.formats, ElementsAre(Int(4, 32), Int(8, 32), Int(4, 64, false)));
}

TEST(GptqConfigTest, WhatCannotBeReadIsRefused) {
  for (const char* bad :
       {R"([])", R"({})", R"({"bits":5})", R"({"bits":"4"})", R"({"bits":4,"group_size":-2})",
        R"({"bits":4,"group_size":1e9})", R"({"bits":4,"pack_dtype":"int16"})",
        R"({"bits":4,"checkpoint_format":"marlin"})", R"({"bits":4,"dynamic":7})",
        R"({"bits":4,"dynamic":{"+:x":{"bits":6}}})", R"({"bits":4,"dynamic":{"+:x":3}})"}) {
    EXPECT_THAT(ReadGptqConfig(bad, "c"),
                FailsWith("QUANT_METHOD_UNSUPPORTED", HasSubstr("c: quantization_config")))
        << bad;
  }
}

}  // namespace
}  // namespace lwq
