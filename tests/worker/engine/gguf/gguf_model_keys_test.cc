#include "worker/engine/gguf/gguf_model_keys.h"

#include "base/file.h"
#include "nlohmann/json.hpp"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;
using Json = nlohmann::json;

// A config.json of `model_class` with sizes, changed by `changes`; a null there takes a field out.
std::string Config(const char* model_class, const Json& changes = Json::object()) {
  Json config = {{"architectures", {model_class}},  {"hidden_size", 512},
                 {"intermediate_size", 1024},       {"num_hidden_layers", 12},
                 {"num_attention_heads", 8},        {"num_key_value_heads", 2},
                 {"max_position_embeddings", 2048}, {"rms_norm_eps", 1e-6},
                 {"rope_theta", 500000.0},          {"vocab_size", 1000}};
  config.merge_patch(changes);
  return config.dump();
}

template <typename T>
T KeyOf(const GgufModel& model, const char* key) {
  const T* value = model.metadata.Get<T>(key);
  EXPECT_NE(value, nullptr) << key;
  return value == nullptr ? T() : *value;
}

TEST(GgufModelKeysTest, SampleHasLlamasKeys) {
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string config,
                           ReadFile(testing::SampleModelPath() + "/config.json", 1 << 20));
  LWQ_ASSERT_OK_AND_ASSIGN(const GgufModel model, ReadGgufModel(config, "books"));
  GgufMetadata expected;
  expected.Set("general.architecture", std::string("llama"));
  expected.Set("general.type", std::string("model"));
  expected.Set("general.name", std::string("books"));
  expected.Set("general.quantization_version", uint32_t{2});
  expected.Set("llama.context_length", uint32_t{512});
  expected.Set("llama.embedding_length", uint32_t{256});
  expected.Set("llama.block_count", uint32_t{12});
  expected.Set("llama.feed_forward_length", uint32_t{768});
  expected.Set("llama.attention.head_count", uint32_t{4});
  expected.Set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  expected.Set("llama.attention.head_count_kv", uint32_t{2});
  expected.Set("llama.vocab_size", uint32_t{4096});
  expected.Set("llama.rope.freq_base", 10000.0f);
  expected.Set("llama.rope.dimension_count", uint32_t{64});
  EXPECT_EQ(model.metadata.entries(), expected.entries());
  EXPECT_EQ(model.num_heads, 4);
  EXPECT_EQ(model.num_kv_heads, 2);
  EXPECT_TRUE(model.rope_tensors.empty());
}

TEST(GgufModelKeysTest, HeadSizesAreThereWhereTheyDoNotFollow) {
  LWQ_ASSERT_OK_AND_ASSIGN(GgufModel model, ReadGgufModel(Config("LlamaForCausalLM"), ""));
  EXPECT_EQ(model.metadata.Find("llama.attention.key_length"), nullptr);
  EXPECT_EQ(model.metadata.Find("general.name"), nullptr);
  LWQ_ASSERT_OK_AND_ASSIGN(model,
                           ReadGgufModel(Config("LlamaForCausalLM", {{"head_dim", 128}}), ""));
  EXPECT_EQ(KeyOf<uint32_t>(model, "llama.attention.key_length"), 128u);
  EXPECT_EQ(KeyOf<uint32_t>(model, "llama.attention.value_length"), 128u);
  EXPECT_EQ(KeyOf<uint32_t>(model, "llama.rope.dimension_count"), 128u);
  LWQ_ASSERT_OK_AND_ASSIGN(model, ReadGgufModel(Config("Qwen3ForCausalLM"), ""));
  EXPECT_EQ(KeyOf<uint32_t>(model, "qwen3.attention.key_length"), 64u);
  LWQ_ASSERT_OK_AND_ASSIGN(
      model, ReadGgufModel(Config("LlamaForCausalLM", {{"num_key_value_heads", nullptr}}), ""));
  EXPECT_EQ(KeyOf<uint32_t>(model, "llama.attention.head_count_kv"), 8u);
}

TEST(GgufModelKeysTest, ExpertsAreCounted) {
  LWQ_ASSERT_OK_AND_ASSIGN(GgufModel model,
                           ReadGgufModel(Config("MixtralForCausalLM", {{"num_local_experts", 16},
                                                                       {"num_experts_per_tok", 2}}),
                                         ""));
  EXPECT_EQ(KeyOf<std::string>(model, "general.architecture"), "llama");
  EXPECT_EQ(KeyOf<uint32_t>(model, "llama.expert_count"), 16u);
  EXPECT_EQ(KeyOf<uint32_t>(model, "llama.expert_used_count"), 2u);
  LWQ_ASSERT_OK_AND_ASSIGN(
      model, ReadGgufModel(Config("Qwen3MoeForCausalLM", {{"num_experts", 128},
                                                          {"num_experts_per_tok", 8},
                                                          {"moe_intermediate_size", 96},
                                                          {"norm_topk_prob", true}}),
                           ""));
  EXPECT_EQ(KeyOf<uint32_t>(model, "qwen3moe.expert_count"), 128u);
  EXPECT_EQ(KeyOf<uint32_t>(model, "qwen3moe.expert_feed_forward_length"), 96u);
  // As transformers 5 writes it.
  LWQ_ASSERT_OK_AND_ASSIGN(
      model, ReadGgufModel(Config("Qwen3MoeForCausalLM", {{"num_local_experts", 64},
                                                          {"num_experts_per_tok", 8},
                                                          {"moe_intermediate_size", 96}}),
                           ""));
  EXPECT_EQ(KeyOf<uint32_t>(model, "qwen3moe.expert_count"), 64u);
}

// The numbers of Llama 3.2: short waves stay, long ones are 32 times as long.
TEST(GgufModelKeysTest, Llama3RopeIsATensorOfDivisors) {
  const Json scaling = {{"rope_type", "llama3"},
                        {"factor", 32.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  LWQ_ASSERT_OK_AND_ASSIGN(
      const GgufModel model,
      ReadGgufModel(Config("LlamaForCausalLM", {{"rope_scaling", scaling}}), ""));
  ASSERT_EQ(model.rope_tensors.size(), 1u);
  EXPECT_EQ(model.rope_tensors[0].name, "rope_freqs.weight");
  const std::vector<float>& divisors = model.rope_tensors[0].values;
  ASSERT_EQ(divisors.size(), 32u);
  // Waves of 2 pi 500000^(i / 32) tokens: up to 2048 they stay, from 8192 on they are stretched.
  EXPECT_EQ(divisors[14], 1.0f);   // 1955 tokens
  EXPECT_EQ(divisors[18], 32.0f);  // 10084
  // 2946 tokens: (8192 / 2946 - 1) / 3 = 0.593 of the way, 1 / (0.407 / 32 + 0.593).
  EXPECT_NEAR(divisors[15], 1.6503, 2e-3);
  EXPECT_EQ(model.metadata.Find("llama.rope.scaling.type"), nullptr);
}

TEST(GgufModelKeysTest, RopeOfBothTransformersVersionsIsRead) {
  const Json linear = {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 1e6}};
  LWQ_ASSERT_OK_AND_ASSIGN(
      const GgufModel model,
      ReadGgufModel(
          Config("Qwen2ForCausalLM", {{"rope_theta", nullptr}, {"rope_parameters", linear}}), ""));
  EXPECT_EQ(KeyOf<float>(model, "qwen2.rope.freq_base"), 1e6f);
  EXPECT_EQ(KeyOf<std::string>(model, "qwen2.rope.scaling.type"), "linear");
  EXPECT_EQ(KeyOf<float>(model, "qwen2.rope.scaling.factor"), 4.0f);
  const Json yarn = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 512}};
  LWQ_ASSERT_OK_AND_ASSIGN(const GgufModel stretched,
                           ReadGgufModel(Config("Qwen3ForCausalLM", {{"rope_scaling", yarn}}), ""));
  EXPECT_EQ(KeyOf<uint32_t>(stretched, "qwen3.rope.scaling.original_context_length"), 512u);
}

TEST(GgufModelKeysTest, Gemma3HasTwoKindsOfLayers) {
  const Json config = {{"head_dim", 256},
                       {"query_pre_attn_scalar", 256},
                       {"hidden_activation", "gelu_pytorch_tanh"},
                       {"sliding_window", 512},
                       {"rope_local_base_freq", 10000.0},
                       {"sliding_window_pattern", 6}};
  LWQ_ASSERT_OK_AND_ASSIGN(const GgufModel model,
                           ReadGgufModel(Config("Gemma3ForCausalLM", config), ""));
  EXPECT_EQ(KeyOf<uint32_t>(model, "gemma3.attention.sliding_window"), 512u);
  EXPECT_EQ(KeyOf<float>(model, "gemma3.rope.freq_base"), 500000.0f);
  EXPECT_EQ(KeyOf<float>(model, "gemma3.rope.freq_base_swa"), 10000.0f);
  const Json newer = {{"rope_local_base_freq", nullptr},
                      {"rope_theta", nullptr},
                      {"rope_parameters",
                       {{"full_attention", {{"rope_type", "default"}, {"rope_theta", 2e6}}},
                        {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 3e4}}}}}};
  Json both = config;
  both.update(newer);
  LWQ_ASSERT_OK_AND_ASSIGN(const GgufModel parameters,
                           ReadGgufModel(Config("Gemma3ForCausalLM", both), ""));
  EXPECT_EQ(KeyOf<float>(parameters, "gemma3.rope.freq_base"), 2e6f);
  EXPECT_EQ(KeyOf<float>(parameters, "gemma3.rope.freq_base_swa"), 3e4f);
  for (const Json& change :
       {Json{{"query_pre_attn_scalar", 64}},
        Json{{"layer_types", {"sliding_attention", "full_attention"}}},
        Json{{"sliding_window_pattern", 5}}, Json{{"attn_logit_softcapping", 50.0}}}) {
    Json changed = config;
    changed.update(change);
    EXPECT_THAT(ReadGgufModel(Config("Gemma3ForCausalLM", changed), ""),
                FailsWith("GGUF_UNSUPPORTED", HasSubstr("llama.cpp")))
        << change;
  }
}

TEST(GgufModelKeysTest, Phi3HasLongAndShortFactors) {
  const std::vector<double> longer(24, 2.0), shorter(24, 1.0);
  const Json config = {
      {"partial_rotary_factor", 0.75},
      {"original_max_position_embeddings", 512},
      {"sliding_window", 262144},
      {"rope_scaling", {{"type", "longrope"}, {"long_factor", longer}, {"short_factor", shorter}}}};
  LWQ_ASSERT_OK_AND_ASSIGN(const GgufModel model,
                           ReadGgufModel(Config("Phi3ForCausalLM", config), ""));
  EXPECT_EQ(KeyOf<uint32_t>(model, "phi3.rope.dimension_count"), 48u);
  EXPECT_EQ(KeyOf<uint32_t>(model, "phi3.rope.scaling.original_context_length"), 512u);
  // sqrt(1 + ln 4 / ln 512)
  EXPECT_NEAR(KeyOf<float>(model, "phi3.rope.scaling.attn_factor"), 1.10554, 1e-5);
  ASSERT_EQ(model.rope_tensors.size(), 2u);
  EXPECT_EQ(model.rope_tensors[0].name, "rope_factors_long.weight");
  EXPECT_EQ(model.rope_tensors[1].values, std::vector<float>(24, 1.0f));
  Json wrong = config;
  wrong["rope_scaling"]["short_factor"] = std::vector<double>(32, 1.0);
  EXPECT_THAT(ReadGgufModel(Config("Phi3ForCausalLM", wrong), ""),
              FailsWith("CONFIG_INVALID", HasSubstr("short_factor")));
}

TEST(GgufModelKeysTest, WhatWouldRunWrongIsRefused) {
  const struct {
    const char* model_class;
    Json change;
    const char* reason;
    const char* said;
  } cases[] = {
      {"MambaForCausalLM", Json::object(), "ARCH_UNSUPPORTED", "MambaForCausalLM"},
      {"LlamaForCausalLM", {{"hidden_act", "gelu"}}, "GGUF_UNSUPPORTED", "hidden_act"},
      {"LlamaForCausalLM",
       {{"rope_scaling", {{"type", "dynamic"}}}},
       "GGUF_UNSUPPORTED",
       "dynamic"},
      {"LlamaForCausalLM", {{"partial_rotary_factor", 0.5}}, "GGUF_UNSUPPORTED", "partial_rotary"},
      {"Qwen2ForCausalLM", {{"head_dim", 128}}, "GGUF_UNSUPPORTED", "head_dim"},
      {"Qwen2ForCausalLM", {{"use_sliding_window", true}}, "GGUF_UNSUPPORTED", "sliding_window"},
      {"LlamaForCausalLM", {{"hidden_size", nullptr}}, "CONFIG_INVALID", "hidden_size"},
      {"LlamaForCausalLM", {{"hidden_size", -1}}, "CONFIG_INVALID", "hidden_size"},
      {"LlamaForCausalLM", {{"hidden_size", 1.5}}, "CONFIG_INVALID", "hidden_size"},
      {"LlamaForCausalLM", {{"num_attention_heads", 0}}, "CONFIG_INVALID", "num_attention_heads"},
      {"LlamaForCausalLM", {{"head_dim", 7}}, "CONFIG_INVALID", "head_dim"},
      {"LlamaForCausalLM", {{"rope_scaling", 3}}, "CONFIG_INVALID", "rope"}};
  for (const auto& one : cases) {
    EXPECT_THAT(ReadGgufModel(Config(one.model_class, one.change), ""),
                FailsWith(one.reason, HasSubstr(one.said)))
        << one.change;
  }
  EXPECT_THAT(ReadGgufModel("[]", ""), FailsWith("CONFIG_INVALID", HasSubstr("object")));
  EXPECT_THAT(ReadGgufModel("{}", ""), FailsWith("CONFIG_INVALID", HasSubstr("architectures")));
}

}  // namespace
}  // namespace lwq
