#include "worker/engine/artifact/quantization_config.h"

#include <regex>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"
#include "worker/engine/artifact/compressed_tensors.h"
#include "worker/engine/format/fp8_row.h"
#include "worker/engine/format/grid.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

const WeightFormat* Int(int bits, int64_t group_size, bool symmetric = true) {
  return GridFormat::Find(bits, group_size, symmetric);
}

ModelInventory Model(int num_layers, bool untied) {
  ModelInventory model;
  model.num_layers = num_layers;
  for (int l = 0; l < num_layers; ++l) {
    const std::string module = absl::StrCat("model.layers.", l, ".");
    const auto unit = [&](absl::string_view parent, absl::string_view fused,
                          const std::vector<std::string>& leaves) {
      AllocationUnit u;
      u.kind = absl::StrCat(parent, ".", fused);
      u.name = absl::StrCat("layers.", l, ".", u.kind);
      u.place = Place::Layer(l);
      for (const std::string& leaf : leaves) {
        const std::string name = absl::StrCat(parent, ".", leaf);
        u.linears.push_back({module + name, 64, 64, name});
      }
      model.units.push_back(u);
    };
    unit("self_attn", "qkv_proj", {"q_proj", "k_proj", "v_proj"});
    unit("self_attn", "o_proj", {"o_proj"});
    unit("mlp", "gate_up_proj", {"gate_proj", "up_proj"});
    unit("mlp", "down_proj", {"down_proj"});
  }
  if (untied) {
    model.units.push_back({"lm_head", Place::Head(), {{"lm_head", 512, 64, "lm_head"}}, "lm_head"});
  }
  return model;
}

bool Matches(const std::string& target, const std::string& module) {
  if (target.rfind("re:", 0) != 0) return target == module;
  return std::regex_search(module, std::regex(target.substr(3)));
}

// Names of the groups (or "ignore") whose targets match the module.
std::vector<std::string> WhereMatched(const Json& config, const std::string& module) {
  std::vector<std::string> found;
  for (const auto& group : config["config_groups"].items()) {
    for (const std::string target : group.value()["targets"]) {
      if (Matches(target, module)) found.push_back(group.key());
    }
  }
  for (const std::string target : config["ignore"]) {
    if (Matches(target, module)) found.push_back("ignore");
  }
  return found;
}

// A layer of experts: those with two digits too, the fused module, and the names that vLLM gives to
// all; the router and the shared expert are none of them.
TEST(QuantizationConfigTest, ExpertsAreMatchedByAllTheirNamesAndRoutersIgnored) {
  ModelInventory model = Model(1, false);
  AllocationUnit& unit = model.units.emplace_back();
  unit.kind = "block_sparse_moe.experts";
  unit.name = "layers.0.block_sparse_moe.experts";
  unit.place = Place::Layer(0);
  for (int e = 0; e < 12; ++e) {
    for (const char* leaf : {"w1", "w3", "w2"}) {
      unit.linears.push_back({absl::StrCat("model.layers.0.", unit.kind, ".", e, ".", leaf), 64, 64,
                              absl::StrCat(unit.kind, ".", leaf)});
    }
  }
  const std::string router = "model.layers.0.block_sparse_moe.gate";
  model.dense.push_back({{router + ".weight", DType::kF16, {12, 64}}, Place::Layer(0), ""});
  Plan plan(model.units.size(), Int(4, 32));
  plan.back() = Int(8, 32);
  const Json config = Json::parse(QuantizationConfigJson(model, plan));
  using ::testing::ElementsAre;
  for (const char* name : {"model.layers.0.block_sparse_moe.experts.11.w2",
                           "model.layers.0.block_sparse_moe.experts.0.gate_proj",
                           "model.layers.0.block_sparse_moe.experts"}) {
    EXPECT_THAT(WhereMatched(config, name), ElementsAre("group_w8_g32")) << name;
  }
  EXPECT_THAT(WhereMatched(config, router), ElementsAre("ignore"));
  EXPECT_THAT(WhereMatched(config, "model.layers.0.block_sparse_moe.experts.x.w1"), ElementsAre());
}

TEST(QuantizationConfigTest, EveryLinearAndFusedNameMatchesExactlyOnce) {
  const ModelInventory model = Model(12, true);
  Plan formats;
  const WeightFormat* const cycle[] = {Int(4, 128), DenseFormat(), Int(2, 64), Int(8, 0),
                                       Int(3, 32, false)};
  for (size_t i = 0; i < model.units.size(); ++i) formats.push_back(cycle[i % 5]);
  const Json config = Json::parse(QuantizationConfigJson(model, formats));
  const std::vector<std::string> names = {"group_w4_g128", "ignore", "group_w2_g64",
                                          "group_w8_channel", "group_w3_g32_asym"};
  for (size_t i = 0; i < model.units.size(); ++i) {
    std::vector<std::string> modules = {"model." + model.units[i].name,
                                        model.units[i].name};  // as engines call the fused one
    if (!model.units[i].place.in_layer()) modules = {};
    for (const LinearShape& linear : model.units[i].linears) {
      modules.push_back(linear.module);
      // A multimodal wrapper puts a component in front.
      if (model.units[i].place.in_layer()) modules.push_back("language_model." + linear.module);
    }
    for (const std::string& module : modules) {
      EXPECT_THAT(WhereMatched(config, module), ::testing::ElementsAre(names[i % 5])) << module;
    }
  }
  EXPECT_TRUE(WhereMatched(config, "model.embed_tokens").empty());
  EXPECT_TRUE(WhereMatched(config, "model.layers.120.mlp.down_proj").empty());
  EXPECT_TRUE(WhereMatched(config, "model.layers.1.mlp.xdown_proj").empty());
}

TEST(QuantizationConfigTest, TheHeadIsIgnoredUnlessItIsQuantized) {
  const Plan one_layer(4, Int(4, 32));
  EXPECT_THAT(
      WhereMatched(Json::parse(QuantizationConfigJson(Model(1, false), one_layer)), "lm_head"),
      ::testing::ElementsAre("ignore"));
  Plan with_head = one_layer;
  with_head.push_back(DenseFormat());
  EXPECT_THAT(
      WhereMatched(Json::parse(QuantizationConfigJson(Model(1, true), with_head)), "lm_head"),
      ::testing::ElementsAre("ignore"));
  with_head.back() = Int(8, 32);
  EXPECT_THAT(
      WhereMatched(Json::parse(QuantizationConfigJson(Model(1, true), with_head)), "lm_head"),
      ::testing::ElementsAre("group_w8_g32"));
}

// The whole dictionary as docs/formats/compressed_tensors.md shows it.
TEST(QuantizationConfigTest, EqualsTheDocumentedDictionary) {
  const ModelInventory model = Model(2, false);
  const Plan formats = {Int(4, 128), Int(8, 0), DenseFormat(), Int(4, 128),
                        Int(4, 128), Int(8, 0), DenseFormat(), Int(8, 0)};
  const std::string expected =
      R"({"quant_method":"compressed-tensors","format":"pack-quantized",)"
      R"("quantization_status":"compressed",)"
      R"("ignore":["lm_head",)"
      R"("re:^(?:.*\\.)?layers\\.(?:0|1)\\.mlp\\.(?:gate_proj|up_proj|gate_up_proj)$"],)"
      R"("kv_cache_scheme":null,"global_compression_ratio":null,"sparsity_config":{},)"
      R"("transform_config":{},"version":"0.18.0","config_groups":{)"
      R"("group_w4_g128":{"targets":[)"
      R"("re:^(?:.*\\.)?layers\\.(?:0|1)\\.self_attn\\.(?:q_proj|k_proj|v_proj|qkv_proj)$",)"
      R"("re:^(?:.*\\.)?layers\\.(?:0)\\.mlp\\.down_proj$"],)"
      R"("weights":{"num_bits":4,"type":"int","symmetric":true,"strategy":"group",)"
      R"("group_size":128,"dynamic":false},)"
      R"("input_activations":null,"output_activations":null,"format":"pack-quantized"},)"
      R"("group_w8_channel":{"targets":[)"
      R"("re:^(?:.*\\.)?layers\\.(?:0|1)\\.self_attn\\.o_proj$",)"
      R"("re:^(?:.*\\.)?layers\\.(?:1)\\.mlp\\.down_proj$"],)"
      R"("weights":{"num_bits":8,"type":"int","symmetric":true,"strategy":"channel",)"
      R"("dynamic":false},)"
      R"("input_activations":null,"output_activations":null,"format":"pack-quantized"}}})";
  EXPECT_EQ(QuantizationConfigJson(model, formats), expected);
}

TEST(QuantizationConfigTest, OtherKeysOfTheSourceKeepTheirOrderAndValues) {
  const ModelInventory model = Model(1, false);
  const std::string source =
      R"({"z": 1e-05, "a": [1, {"b": null}], "torch_dtype": "float16", "rope_theta": 10000.0})";
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string text,
                           ArtifactConfigJson(source, model, Plan(4, Int(4, 32))));
  EXPECT_EQ(text.rfind("{\n  \"z\": 1e-05,\n  \"a\": [", 0), 0u) << text;
  EXPECT_THAT(text, HasSubstr("\"rope_theta\": 10000.0"));
  Json config = Json::parse(text);
  EXPECT_TRUE(config.contains("quantization_config"));
  config.erase("quantization_config");
  EXPECT_EQ(config, Json::parse(source));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string dense,
                           ArtifactConfigJson(source, model, Plan(4, DenseFormat())));
  EXPECT_EQ(Json::parse(dense), Json::parse(source)) << "all dense: nothing to declare";
  EXPECT_THAT(ArtifactConfigJson("[]", model, Plan(4, DenseFormat())),
              FailsWith("CONFIG_INVALID", HasSubstr("object")));
}

// As llm-compressor writes its W8A8 and FP8_DYNAMIC schemes.
TEST(QuantizationConfigTest, LinearsMultipliedIn8BitsSayWhatBecomesOfTheirInputs) {
  const WeightFormat* integers = GridFormat::WithRoundedInputs();
  const WeightFormat* floats = Fp8RowFormat::Find();
  const auto config = [](const Plan& plan) {
    return Json::parse(QuantizationConfigJson(Model(1, false), plan));
  };
  const Json one = config({integers, integers, DenseFormat(), integers});
  EXPECT_EQ(one["format"], "int-quantized");
  EXPECT_EQ(one["config_groups"]["group_w8_channel_a8"]["input_activations"],
            Json::parse(R"({"num_bits":8,"type":"int","symmetric":true,"strategy":"token",)"
                        R"("dynamic":true})"));
  EXPECT_EQ(one["config_groups"]["group_w8_channel_a8"]["format"], "int-quantized");
  EXPECT_EQ(config(Plan(4, floats))["format"], "float-quantized");
  const Plan mixed = {floats, Int(8, 0), integers, Int(8, 0)};
  const Json all = config(mixed);
  EXPECT_EQ(all["format"], "mixed-precision");
  EXPECT_EQ(all["config_groups"]["group_fp8_channel_a8"]["weights"]["type"], "float");
  EXPECT_TRUE(all["config_groups"]["group_w8_channel"]["input_activations"].is_null());
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string text,
                           ArtifactConfigJson("{}", Model(1, false), mixed));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto read, ReadQuantizationConfig(text, "c"));
  EXPECT_THAT(read.formats, ::testing::ElementsAre(Int(8, 0), integers, floats));
}

TEST(QuantizationConfigTest, OtherRulesForInputsAreRefused) {
  const auto config = [](const std::string& weights, const std::string& inputs) {
    return absl::StrCat(R"({"quantization_config":{"quant_method":"compressed-tensors",)"
                        R"("format":"int-quantized","config_groups":{"g":{"weights":)",
                        weights, R"(,"input_activations":)", inputs, "}}}}");
  };
  const std::string weights = R"({"num_bits":8,"type":"int","strategy":"channel"})";
  const std::string inputs = R"({"num_bits":8,"type":"int","strategy":"token","dynamic":true})";
  EXPECT_OK(ReadQuantizationConfig(config(weights, inputs), "c"));
  for (const std::string& bad :
       {config(weights, "null"), config(R"({"num_bits":8,"strategy":"tensor"})", inputs),
        config(R"({"num_bits":8,"type":"float","strategy":"channel"})", inputs),
        config(R"({"num_bits":8,"strategy":"channel","symmetric":false})", inputs),
        config(weights, R"({"num_bits":8,"strategy":"token"})"),
        config(weights, R"({"num_bits":8,"strategy":"tensor","dynamic":true})"),
        config(weights, R"({"num_bits":4,"strategy":"token","dynamic":true})")}) {
    EXPECT_THAT(ReadQuantizationConfig(bad, "c"),
                FailsWith("QUANT_METHOD_UNSUPPORTED", HasSubstr("by token")))
        << bad;
  }
}

TEST(QuantizationConfigTest, WhatIsWrittenIsRead) {
  const ModelInventory model = Model(1, false);
  const Plan formats = {Int(2, 64), Int(3, 0), Int(8, 32, false), Int(2, 64)};
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string text, ArtifactConfigJson("{}", model, formats));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto read, ReadQuantizationConfig(text, "config.json"));
  EXPECT_THAT(read.formats, ::testing::ElementsAre(Int(2, 64), Int(3, 0), Int(8, 32, false)));
  EXPECT_EQ(read.coding, &CompressedTensorsCoding());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto none, ReadQuantizationConfig("{}", "config.json"));
  EXPECT_TRUE(none.formats.empty());
  EXPECT_EQ(none.coding, nullptr);
}

// As Qwen3-8B-FP8 and DeepSeek-V3 say it. Their weights are read as dense ones.
TEST(QuantizationConfigTest, FloatsOf8BitsInBlocksAreRead) {
  const auto config = [](const std::string& rest) {
    return absl::StrCat(R"({"quantization_config":{"activation_scheme":"dynamic",)"
                        R"("quant_method":"fp8")",
                        rest, "}}");
  };
  LWQ_ASSERT_OK_AND_ASSIGN(
      const DeclaredQuantization read,
      ReadQuantizationConfig(config(R"(,"fmt":"e4m3","weight_block_size":[128,128])"), "c"));
  EXPECT_TRUE(read.fp8_blocks);
  EXPECT_EQ(read.coding, nullptr);
  for (const char* rest :
       {"", R"(,"weight_block_size":null)", R"(,"weight_block_size":[128,64])",
        R"(,"weight_block_size":[128])", R"(,"fmt":"e5m2","weight_block_size":[128,128])"}) {
    EXPECT_THAT(ReadQuantizationConfig(config(rest), "c"),
                FailsWith("QUANT_METHOD_UNSUPPORTED", HasSubstr("blocks of 128 by 128")))
        << rest;
  }
}

TEST(QuantizationConfigTest, WhatCannotBeReadIsRefused) {
  const auto with_weights = [](const std::string& weights, const std::string& rest) {
    return absl::StrCat(R"({"quantization_config":{"quant_method":"compressed-tensors",)"
                        R"("format":"pack-quantized","config_groups":{"g":{"weights":)",
                        weights, rest, "}}}}");
  };
  const std::string good = R"({"num_bits":4,"type":"int","strategy":"channel"})";
  EXPECT_OK(ReadQuantizationConfig(with_weights(good, ""), "c"));
  const std::string bad[] = {
      R"({"quantization_config":{"quant_method":"gptq"}})",
      R"({"quantization_config":{}})",
      R"({"quantization_config":7})",
      R"({"quantization_config":{"quant_method":"compressed-tensors","config_groups":{}}})",
      R"({"quantization_config":{"quant_method":"compressed-tensors","config_groups":{"g":1}}})",
      with_weights(good, R"(,"format":"int-quantized")"),
      with_weights(good, R"(,"input_activations":{"num_bits":8})"),
      with_weights(R"({"num_bits":4,"type":"float","strategy":"channel"})", ""),
      with_weights(R"({"num_bits":9,"type":"int","strategy":"channel"})", ""),
      with_weights(R"({"num_bits":-4,"type":"int","strategy":"channel"})", ""),
      with_weights(R"({"num_bits":4,"type":"int","strategy":"block"})", ""),
      with_weights(R"({"num_bits":4,"type":"int","strategy":"group"})", ""),
      with_weights(R"({"num_bits":4,"type":"int","strategy":"group","group_size":0})", ""),
      with_weights(R"({"num_bits":4,"type":"int","strategy":"channel","actorder":"group"})", "")};
  for (const std::string& config : bad) {
    EXPECT_THAT(ReadQuantizationConfig(config, "c"),
                FailsWith("QUANT_METHOD_UNSUPPORTED", HasSubstr("c: quantization_config")))
        << config;
  }
}

// Rotations, sparsity and rounded keys change what is computed: numbers without them would be of
// another model.
TEST(QuantizationConfigTest, WhatElseAModelComputesIsRefused) {
  const auto with = [](const std::string& more) {
    return absl::StrCat(
        R"({"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized",)",
        more,
        R"("config_groups":{"g":{"weights":{"num_bits":4,"type":"int","strategy":"channel"}}}}})");
  };
  for (const char* nothing :
       {"", R"("transform_config":{},"sparsity_config":{},"kv_cache_scheme":null,)",
        R"("transform_config":null,"sparsity_config":{"format":"dense"},)",
        R"("transform_config":{"config_groups":{}},)"}) {
    EXPECT_OK(ReadQuantizationConfig(with(nothing), "c")) << nothing;
  }
  const std::pair<const char*, const char*> bad[] = {
      {R"("transform_config":{"config_groups":{"v":{"type":"hadamard"}}},)", "transform_config"},
      {R"("sparsity_config":{"format":"sparse-24-bitmask"},)", "sparse-24-bitmask"},
      {R"("kv_cache_scheme":{"num_bits":8,"type":"float"},)", "kv_cache_scheme"}};
  for (const auto& [more, named] : bad) {
    EXPECT_THAT(ReadQuantizationConfig(with(more), "c"),
                FailsWith("QUANT_METHOD_UNSUPPORTED", HasSubstr(named)));
  }
}

}  // namespace
}  // namespace lwq
