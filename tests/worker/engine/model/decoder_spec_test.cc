// What config.json may say, what it may not, and how a checkpoint is held against it.
#include "worker/engine/model/decoder_spec.h"

#include "base/file.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/model/config_reader.h"
#include "worker/engine/model/decoder.h"

namespace lwq {
namespace {

using ::testing::AllOf;
using testing::FailsWith;
using ::testing::HasSubstr;

// A valid config with `extra` fields put before the others; duplicates are not allowed in JSON, so
// a field of `without` is left out.
std::string Config(const std::string& extra, const std::string& without = "") {
  const std::pair<const char*, const char*> fields[] = {{"architectures", "[\"LlamaForCausalLM\"]"},
                                                        {"hidden_size", "64"},
                                                        {"intermediate_size", "128"},
                                                        {"num_hidden_layers", "2"},
                                                        {"num_attention_heads", "4"},
                                                        {"vocab_size", "96"},
                                                        {"hidden_act", "\"silu\""}};
  std::string text = "{" + extra;
  for (const auto& [name, value] : fields) {
    if (without == name) continue;
    if (text.size() > 1) text += ",";
    text += std::string("\"") + name + "\":" + value;
  }
  return text + "}";
}

absl::StatusOr<DecoderSpec> Read(const std::string& config) {
  LWQ_ASSIGN_OR_RETURN(const TempDirectory directory, TempDirectory::Create());
  LWQ_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(directory.path(), "config.json"), config));
  return ReadDecoderSpec(directory.path());
}

TEST(DecoderSpec, DefaultsAreThoseOfTransformers) {
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, Read(Config("")));
  EXPECT_EQ(spec.family, "llama");
  EXPECT_EQ(spec.num_kv_heads, 4);
  EXPECT_EQ(spec.head_dim, 16);
  EXPECT_EQ(spec.norm_epsilon, 1e-6);
  EXPECT_EQ(spec.layers[0].attention.rope.theta, 10000);
  EXPECT_EQ(spec.layers[0].attention.rope.type, RopeType::kDefault);
  EXPECT_FALSE(spec.head.tied);
  EXPECT_EQ(spec.bos_token_id, -1);
}

TEST(DecoderSpec, RotaryFieldsInBothSpellings) {
  const std::string inner =
      "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
      "\"original_max_position_embeddings\":8192";
  for (const std::string& extra :
       {"\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\"," + inner + "}",
        "\"rope_theta\":500000.0,\"rope_scaling\":{\"type\":\"llama3\"," + inner + "}",
        "\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\"," + inner + "}"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, Read(Config(extra)));
    EXPECT_EQ(spec.layers[0].attention.rope.type, RopeType::kLlama3) << extra;
    EXPECT_EQ(spec.layers[0].attention.rope.theta, 500000) << extra;
    EXPECT_EQ(spec.layers[0].attention.rope.factor, 8) << extra;
    EXPECT_EQ(spec.layers[0].attention.rope.original_max_positions, 8192) << extra;
  }
}

TEST(DecoderSpec, FieldsThatMayMatterAndThatNobodyAsksForAreRefused) {
  const struct {
    std::string extra, field;
  } cases[] = {{"\"logit_scale\":0.5", "logit_scale: 0.5"},
               {"\"sliding_window\":64", "sliding_window: 64"},
               {"\"final_logit_softcapping\":30.0", "final_logit_softcapping: 30.0"},
               {"\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0,\"alpha\":8}",
                "rope_scaling.alpha: 8"}};
  for (const auto& c : cases) {
    EXPECT_THAT(Read(Config(c.extra)), FailsWith("ARCH_UNSUPPORTED", HasSubstr(c.field)));
  }
  EXPECT_OK(
      Read(Config("\"logit_scale\":null,\"use_qk_norm\":false,\"pruned_heads\":{},"
                  "\"torch_dtype\":\"float16\",\"attention_dropout\":0.1,"
                  "\"_name_or_path\":\"x\",\"quantization_config\":{\"a\":1}")));
}

std::string ConfigOf(const std::string& architecture, const std::string& extra) {
  return Config("\"architectures\":[\"" + architecture + "\"]" + extra, "architectures");
}

std::vector<int64_t> WindowsOf(const DecoderSpec& spec) {
  std::vector<int64_t> windows;
  for (const LayerSpec& layer : spec.layers) {
    windows.push_back(layer.attention.sliding_window);
  }
  return windows;
}

TEST(DecoderSpec, LayersHaveTheWindowsOfTheirFamily) {
  using ::testing::ElementsAre;
  const struct {
    std::string architecture, extra;
    std::vector<int64_t> windows;
  } cases[] = {{"Qwen2ForCausalLM", ",\"sliding_window\":64,\"num_key_value_heads\":2", {0, 0}},
               {"Qwen2ForCausalLM",
                ",\"use_sliding_window\":true,\"sliding_window\":64,\"max_window_layers\":1,"
                "\"num_key_value_heads\":2",
                {0, 64}},
               {"Qwen3ForCausalLM",
                ",\"use_sliding_window\":true,\"sliding_window\":64,\"num_key_value_heads\":2,"
                "\"layer_types\":[\"sliding_attention\",\"full_attention\"]",
                {64, 0}},
               {"Phi3ForCausalLM", ",\"sliding_window\":33", {33, 33}},
               {"Gemma2ForCausalLM", ",\"sliding_window\":32", {32, 0}},
               {"Gemma3ForCausalLM", "", {4096, 4096}},
               {"Gemma3ForCausalLM", ",\"sliding_window_pattern\":2", {4096, 0}}};
  for (const auto& c : cases) {
    LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, Read(ConfigOf(c.architecture, c.extra)));
    EXPECT_EQ(WindowsOf(spec), c.windows) << c.architecture << c.extra;
  }
  EXPECT_THAT(Read(ConfigOf("Gemma2ForCausalLM", ",\"layer_types\":[\"full_attention\"]")),
              FailsWith("CONFIG_INVALID", HasSubstr("a type for each of 2 layers")));
  EXPECT_THAT(Read(ConfigOf("Gemma2ForCausalLM",
                            ",\"layer_types\":[\"chunked_attention\",\"full_attention\"]")),
              FailsWith("CONFIG_INVALID", HasSubstr("full_attention, sliding_attention")));
  EXPECT_THAT(Read(ConfigOf("Gemma2ForCausalLM", ",\"sliding_window\":null")),
              FailsWith("CONFIG_INVALID", HasSubstr("sliding_window")));
}

TEST(DecoderSpec, GemmaRopesInBothSpellings) {
  for (const std::string extra :
       {",\"rope_theta\":500000.0,\"rope_local_base_freq\":20000.0,\"rope_scaling\":"
        "{\"rope_type\":\"linear\",\"factor\":8.0}",
        ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8.0,"
        "\"rope_theta\":500000.0},\"sliding_attention\":{\"rope_type\":\"default\","
        "\"rope_theta\":20000.0}}"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(
        const DecoderSpec spec,
        Read(ConfigOf("Gemma3ForCausalLM", ",\"sliding_window_pattern\":2" + extra)));
    const RopeSpec &local = spec.layers[0].attention.rope, &global = spec.layers[1].attention.rope;
    EXPECT_EQ(local.theta, 20000) << extra;
    EXPECT_EQ(local.type, RopeType::kDefault) << extra;
    EXPECT_EQ(global.theta, 500000) << extra;
    EXPECT_EQ(global.type, RopeType::kLinear) << extra;
    EXPECT_EQ(global.factor, 8) << extra;
  }
}

TEST(DecoderSpec, WhatGemmaMaySwitchOffIsOffWhenNull) {
  LWQ_ASSERT_OK_AND_ASSIGN(DecoderSpec spec, Read(ConfigOf("Gemma2ForCausalLM", "")));
  EXPECT_EQ(spec.attention_softcap, 50);
  EXPECT_EQ(spec.logit_softcap, 30);
  EXPECT_EQ(spec.attention_scale, 1.0 / 16);
  EXPECT_EQ(spec.embedding.scale, 8);
  EXPECT_TRUE(spec.head.tied);
  LWQ_ASSERT_OK_AND_ASSIGN(
      spec, Read(ConfigOf("Gemma2ForCausalLM",
                          ",\"attn_logit_softcapping\":null,\"final_logit_softcapping\":null")));
  EXPECT_EQ(spec.attention_softcap, 0);
  EXPECT_EQ(spec.logit_softcap, 0);
  EXPECT_THAT(Read(ConfigOf("Gemma3ForCausalLM", ",\"attn_logit_softcapping\":50.0")),
              FailsWith("CONFIG_INVALID", HasSubstr("attn_logit_softcapping")));
  EXPECT_THAT(Read(ConfigOf("Gemma3ForCausalLM", ",\"use_bidirectional_attention\":true")),
              FailsWith("CONFIG_INVALID", HasSubstr("use_bidirectional_attention")));
}

TEST(DecoderSpec, MistralHasASlidingWindowOrNone) {
  const std::string architecture = "\"architectures\":[\"MistralForCausalLM\"]";
  LWQ_ASSERT_OK_AND_ASSIGN(
      DecoderSpec spec,
      Read(Config(architecture + ",\"num_key_value_heads\":4,\"sliding_window\":4096",
                  "architectures")));
  EXPECT_EQ(spec.family, "mistral");
  EXPECT_EQ(spec.layers[0].attention.sliding_window, 4096);
  LWQ_ASSERT_OK_AND_ASSIGN(
      spec, Read(Config(architecture + ",\"num_key_value_heads\":4,\"sliding_window\":null",
                        "architectures")));
  EXPECT_EQ(spec.layers[0].attention.sliding_window, 0);
  LWQ_ASSERT_OK_AND_ASSIGN(
      spec, Read(Config(architecture + ",\"num_key_value_heads\":2", "architectures")));
  EXPECT_EQ(spec.layers[0].attention.sliding_window, 4096) << "transformers' default";
}

TEST(DecoderSpec, EachBadFieldIsNamedWithWhatWasFoundAndWhatIsAccepted) {
  const struct {
    std::string config, field, found, accepted;
  } cases[] = {
      {Config("\"hidden_size\":-1", "hidden_size"), "hidden_size", "-1", "131072"},
      {Config("\"hidden_size\":1e300", "hidden_size"), "hidden_size", "1e+300", "131072"},
      {Config("", "vocab_size"), "vocab_size", "nothing", "whole number"},
      {Config("\"num_hidden_layers\":5000", "num_hidden_layers"), "num_hidden_layers", "5000",
       "4096"},
      {Config("\"vocab_size\":18446744073709551615", "vocab_size"), "vocab_size",
       "18446744073709551615", "4194304"},
      {Config("\"num_key_value_heads\":3"), "num_key_value_heads", "3", "divisor"},
      {Config("\"num_attention_heads\":0", "num_attention_heads"), "num_attention_heads", "0",
       "1 to"},
      {Config("\"head_dim\":7"), "head_dim", "7", "even"},
      {Config("\"hidden_act\":\"gelu\"", "hidden_act"), "hidden_act", "gelu", "silu"},
      {Config("\"tie_word_embeddings\":\"yes\""), "tie_word_embeddings", "yes", "true or false"},
      {Config("\"rope_scaling\":{\"rope_type\":\"su\",\"factor\":4.0}"), "rope_scaling.rope_type",
       "su", "default, linear, dynamic, llama3, yarn, longrope"},
      {Config(
           "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,2],\"long_factor\":[1]}"),
       "rope_scaling.short_factor", "[1,2]", "a list of 8 numbers"},
      {Config("\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":1.0}"),
       "rope_parameters.rope_theta", "1.0", "more than 1"},
      {Config("\"rope_parameters\":{\"partial_rotary_factor\":0.5}"),
       "rope_parameters.partial_rotary_factor", "0.5", "1"},
      {Config("\"original_max_position_embeddings\":64,\"rope_scaling\":{\"type\":\"yarn\","
              "\"original_max_position_embeddings\":32,\"factor\":2.0}"),
       "rope_scaling.original_max_position_embeddings", "32", "64, as outside"},
      {Config("\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":0}"), "rope_scaling.factor",
       "0", "a number"},
      {Config("\"is_causal\":false"), "is_causal", "false", "true"},
      {Config("\"bos_token_id\":96"), "bos_token_id", "96", "below"}};
  for (const auto& c : cases) {
    EXPECT_THAT(Read(c.config),
                FailsWith("CONFIG_INVALID", AllOf(HasSubstr("field " + c.field + ":"),
                                                  HasSubstr(c.found), HasSubstr(c.accepted))));
  }
}

// Each expert has a description of its own: a small file may not ask for millions.
TEST(DecoderSpec, ExpertsOfAllLayersAreBounded) {
  const auto read = [](int layers) {
    return ParseDecoderSpec(
        R"({"architectures":["MixtralForCausalLM"],"hidden_size":64,"intermediate_size":128,)"
        R"("num_attention_heads":8,"vocab_size":96,"num_local_experts":1024,"num_hidden_layers":)" +
        std::to_string(layers) + "}");
  };
  EXPECT_THAT(read(65), FailsWith("CONFIG_INVALID", AllOf(HasSubstr("num_hidden_layers"),
                                                          HasSubstr("65536 experts in all"))));
  EXPECT_OK(read(64).status());
}

TEST(DecoderSpec, UnknownArchitecturesListTheKnown) {
  EXPECT_THAT(Read(Config("\"architectures\":[\"GPT2LMHeadModel\"]", "architectures")),
              FailsWith("ARCH_UNSUPPORTED",
                        AllOf(HasSubstr("GPT2LMHeadModel"), HasSubstr("LlamaForCausalLM"),
                              ::testing::Not(HasSubstr("fields that no family has")))));
  EXPECT_THAT(
      Read(Config("\"architectures\":[\"CohereForCausalLM\"],\"logit_scale\":0.06,"
                  "\"sliding_window\":64",
                  "architectures")),
      FailsWith("ARCH_UNSUPPORTED", HasSubstr("fields that no family has: logit_scale: 0.06")));
  EXPECT_THAT(Read(Config("", "architectures")), FailsWith("ARCH_UNSUPPORTED", HasSubstr("none")));
}

TEST(DecoderSpec, DeepOrBrokenJsonIsRefused) {
  EXPECT_THAT(Read(std::string(2000, '[') + std::string(2000, ']')),
              FailsWith("CONFIG_INVALID", ::testing::_));
  EXPECT_THAT(Read("{\"a\":"), FailsWith("CONFIG_INVALID", ::testing::_));
  EXPECT_THAT(Read("[]"), FailsWith("CONFIG_INVALID", ::testing::_));
}

class InventoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string model = LWQ_SOURCE_DIR "/tests/golden/decoder/tiny";
    LWQ_ASSERT_OK_AND_ASSIGN(spec_, ReadDecoderSpec(model));
    LWQ_ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(model));
  }
  DecoderSpec spec_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(InventoryTest, UnitsAreFusedGroupsAndTheUntiedHead) {
  LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory inventory, TakeInventory(spec_, *checkpoint_));
  std::vector<std::string> names;
  int64_t tensors = static_cast<int64_t>(inventory.dense.size());
  for (const AllocationUnit& unit : inventory.units) {
    names.push_back(unit.name);
    tensors += static_cast<int64_t>(unit.linears.size());
  }
  EXPECT_THAT(names, ::testing::ElementsAre(
                         "layers.0.self_attn.qkv_proj", "layers.0.self_attn.o_proj",
                         "layers.0.mlp.gate_up_proj", "layers.0.mlp.down_proj",
                         "layers.1.self_attn.qkv_proj", "layers.1.self_attn.o_proj",
                         "layers.1.mlp.gate_up_proj", "layers.1.mlp.down_proj", "lm_head"));
  EXPECT_EQ(inventory.units.back().place, Place::Head());
  EXPECT_EQ(inventory.weight_dtype, DType::kF32);
  EXPECT_EQ(tensors, static_cast<int64_t>(checkpoint_->tensor_names().size()));
  EXPECT_TRUE(
      std::is_sorted(inventory.dense.begin(), inventory.dense.end(),
                     [](const TensorSpec& a, const TensorSpec& b) { return a.name < b.name; }));
}

TEST_F(InventoryTest, CheckpointAndConfigMustAgree) {
  DecoderSpec wrong = spec_;
  wrong.layers[0].linears[4].shape.out_features = 100;
  EXPECT_THAT(TakeInventory(wrong, *checkpoint_),
              FailsWith("CONFIG_MISMATCH", AllOf(HasSubstr("gate_proj"), HasSubstr("[96, 48]"),
                                                 HasSubstr("[100, 48]"))));
  wrong = spec_;
  wrong.layers[1].norms[0].tensor = "model.layers.2.input_layernorm.weight";
  EXPECT_THAT(TakeInventory(wrong, *checkpoint_),
              FailsWith("TENSOR_MISSING", HasSubstr("model.layers.2")));
  wrong = spec_;
  wrong.layers.pop_back();
  EXPECT_THAT(TakeInventory(wrong, *checkpoint_),
              FailsWith("CONFIG_MISMATCH", HasSubstr("model.layers.1")));
}

TEST_F(InventoryTest, ADecoderRefusesWhatItCannotDo) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto device, MakeDevice({.device = "cpu", .num_threads = 1}));
  auto weights = MakeCheckpointWeights(checkpoint_.get());
  DecoderSpec spec = spec_;
  spec.layers[1].linears[4].expert = 7;
  EXPECT_THAT(Decoder::Create(spec, weights.get(), device.get(), ComputeType::kF32),
              FailsWith("ARCH_UNSUPPORTED", HasSubstr("without its gate projection")));
  spec.layers[1].experts.emplace().num_experts = 8;
  EXPECT_THAT(Decoder::Create(spec, weights.get(), device.get(), ComputeType::kF32),
              FailsWith("ARCH_UNSUPPORTED", HasSubstr("without its experts' gates")));
  spec.layers[1].norms[0].role = NormRole::kPostMlp;
  EXPECT_THAT(Decoder::Create(spec, weights.get(), device.get(), ComputeType::kF32),
              FailsWith("ARCH_UNSUPPORTED", HasSubstr("norms of experts")));
}

}  // namespace
}  // namespace lwq
