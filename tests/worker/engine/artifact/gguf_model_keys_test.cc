// The keys of a GGUF file mean the model that lwq itself computes: what llama.cpp makes of them,
// written here from its side with its defaults, is the DecoderSpec again, for every family and for
// configurations that leave out what they can.
#include "worker/engine/artifact/gguf_model_keys.h"

#include <cmath>

#include "base/file.h"
#include "nlohmann/json.hpp"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/model/rope.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;
using Json = nlohmann::json;

// A config.json of `model_class` with sizes, changed by `changes`; a null there takes a field out.
std::string Config(const std::string& model_class, const Json& changes = Json::object()) {
  Json config = {{"architectures", {model_class}},  {"hidden_size", 512},
                 {"intermediate_size", 1024},       {"num_hidden_layers", 12},
                 {"num_attention_heads", 8},        {"num_key_value_heads", 2},
                 {"max_position_embeddings", 2048}, {"rms_norm_eps", 1e-6},
                 {"vocab_size", 1000}};
  config.merge_patch(changes);
  return config.dump();
}

absl::StatusOr<GgufModel> Keys(const std::string& config) {
  absl::StatusOr<DecoderSpec> spec = ParseDecoderSpec(config);
  if (!spec.ok()) return spec.status();
  return MakeGgufModel(*spec, "");
}

template <typename T>
T KeyOf(const GgufModel& model, const char* key) {
  const T* value = model.metadata.Get<T>(key);
  EXPECT_NE(value, nullptr) << key;
  return value == nullptr ? T() : *value;
}

// Keys as llama.cpp reads them: those that may be missing have its defaults.
class LlamaCppModel {
 public:
  explicit LlamaCppModel(const GgufModel& model)
      : model_(model), name_(KeyOf<std::string>(model, "general.architecture")) {}

  int64_t Needed(const char* key) const {
    const auto* value = model_.metadata.Get<uint32_t>(Full(key));
    EXPECT_NE(value, nullptr) << Full(key);
    return value == nullptr ? -1 : *value;
  }
  int64_t Size(const char* key, int64_t fallback) const {
    const auto* value = model_.metadata.Get<uint32_t>(Full(key));
    return value == nullptr ? fallback : *value;
  }
  double Number(const char* key, double fallback) const {
    const auto* value = model_.metadata.Get<float>(Full(key));
    return value == nullptr ? fallback : *value;
  }
  std::string Text(const char* key) const {
    const auto* value = model_.metadata.Get<std::string>(Full(key));
    return value == nullptr ? "" : *value;
  }
  const std::vector<float>* Tensor(const char* tensor) const {
    for (const GgufRopeTensor& one : model_.rope_tensors) {
      if (one.name == tensor) return &one.values;
    }
    return nullptr;
  }
  bool gemma() const { return name_ == "gemma3"; }
  int64_t head_dim() const {
    return Size("attention.key_length",
                Needed("embedding_length") / Needed("attention.head_count"));
  }
  int64_t rotated() const { return Size("rope.dimension_count", head_dim()); }
  // Gemma 3: all but every sixth layer.
  int64_t Window(int layer) const {
    return gemma() && layer % 6 != 5 ? Needed("attention.sliding_window") : 0;
  }

 private:
  std::string Full(const char* key) const { return name_ + "." + key; }
  const GgufModel& model_;
  const std::string name_;
};

// What a pair turns by per position, and what cosine and sine are multiplied by (ggml's rope_yarn).
struct Turns {
  std::vector<double> frequencies;
  double scale = 1;
};

Turns TurnsOf(const LlamaCppModel& model, int layer, int64_t length) {
  const bool sliding = model.Window(layer) > 0;
  const double base =
      model.Number(sliding ? "rope.freq_base_swa" : "rope.freq_base", sliding ? -1 : 10000);
  const std::string type = model.Text("rope.scaling.type");
  const double freq_scale =
      type.empty() || sliding ? 1 : 1 / model.Number("rope.scaling.factor", 1);
  const double dims = static_cast<double>(model.rotated());
  const double trained = static_cast<double>(
      model.Size("rope.scaling.original_context_length", model.Needed("context_length")));
  const std::vector<float>* factors = model.Tensor("rope_freqs.weight");
  if (factors == nullptr) {
    factors = model.Tensor(static_cast<double>(length) > trained ? "rope_factors_long.weight"
                                                                 : "rope_factors_short.weight");
  }
  const auto pair_of = [&](const char* key, double fallback) {
    const double turns = model.Number(key, fallback);
    return dims * std::log(trained / (turns * 2 * M_PI)) / (2 * std::log(base));
  };
  const double low = std::max(0.0, std::floor(pair_of("rope.scaling.yarn_beta_fast", 32)));
  const double high = std::min(dims - 1, std::ceil(pair_of("rope.scaling.yarn_beta_slow", 1)));
  Turns turns;
  turns.scale = model.Number("rope.scaling.attn_factor", 1);
  if (type == "yarn") turns.scale *= 1 + 0.1 * std::log(1 / freq_scale);
  for (size_t i = 0; i < static_cast<size_t>(model.rotated() / 2); ++i) {
    double plain = std::pow(base, -2 * static_cast<double>(i) / dims);
    if (factors != nullptr) plain /= (*factors)[i];
    double mix = 0;  // of what is not stretched
    if (type == "yarn") {
      const double ramp = (static_cast<double>(i) - low) / std::max(0.001, high - low);
      mix = 1 - std::min(1.0, std::max(0.0, ramp));
    }
    turns.frequencies.push_back(plain * freq_scale * (1 - mix) + plain * mix);
  }
  return turns;
}

void ExpectSameRope(const LlamaCppModel& found, const DecoderSpec& spec, int64_t length) {
  for (int layer = 0; layer < spec.num_layers(); ++layer) {
    const RopeSpec& rope = spec.layers[static_cast<size_t>(layer)].attention.rope;
    const std::vector<float> expected =
        InverseFrequencies(rope, spec.head_dim, RopeLength(rope, length));
    const Turns turns = TurnsOf(found, layer, length);
    ASSERT_EQ(turns.frequencies.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(turns.frequencies[i] / expected[i], 1, 1e-5) << "layer " << layer << " pair " << i;
    }
    EXPECT_NEAR(turns.scale, rope.attention_factor, 1e-6);
  }
}

void ExpectSameModel(const LlamaCppModel& found, const DecoderSpec& spec) {
  EXPECT_EQ(found.Needed("embedding_length"), spec.hidden_size);
  EXPECT_EQ(found.Needed("block_count"), spec.num_layers());
  EXPECT_EQ(found.Needed("feed_forward_length"), spec.intermediate_size);
  EXPECT_EQ(found.Needed("attention.head_count"), spec.num_heads);
  EXPECT_EQ(found.Size("attention.head_count_kv", spec.num_heads), spec.num_kv_heads);
  EXPECT_EQ(found.head_dim(), spec.head_dim);
  EXPECT_EQ(found.Size("attention.value_length", found.head_dim()), spec.head_dim);
  EXPECT_FLOAT_EQ(found.Number("attention.layer_norm_rms_epsilon", -1), spec.norm_epsilon);
  EXPECT_FLOAT_EQ(found.Number("final_logit_softcapping", 0), spec.logit_softcap);
  const int64_t context = found.Needed("context_length");
  EXPECT_LE(context, spec.max_positions);
  for (int i = 0; i < spec.num_layers(); ++i) {
    const LayerSpec& layer = spec.layers[static_cast<size_t>(i)];
    const int64_t window = layer.attention.sliding_window;
    // A window that llama.cpp does not have is never left.
    EXPECT_TRUE(found.Window(i) == window || (found.Window(i) == 0 && window >= context)) << i;
    EXPECT_EQ(found.Size("expert_count", 0), layer.experts ? layer.experts->num_experts : 0);
    EXPECT_EQ(found.Size("expert_used_count", 0), layer.experts ? layer.experts->per_token : 0);
  }
  ExpectSameRope(found, spec, 1);
  ExpectSameRope(found, spec, context);
}

Json Rope(const char* type, Json fields) {
  fields["rope_type"] = type;
  return {{"rope_scaling", std::move(fields)}};
}

TEST(GgufModelKeysTest, WhatLlamaCppReadsIsTheModel) {
  const Json yarn = {{"factor", 4.0}, {"original_max_position_embeddings", 512}};
  const Json betas = {{"factor", 8.0}, {"beta_fast", 16.0}, {"beta_slow", 2.0}};
  const Json llama3 = {{"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 256}};
  const Json longrope = {{"long_factor", std::vector<double>(32, 3.0)},
                         {"short_factor", std::vector<double>(32, 1.5)},
                         {"original_max_position_embeddings", 512}};
  Json stretched = longrope;
  stretched["attention_factor"] = 1.25;
  Json top_level = Rope("yarn", {{"factor", 4.0}});
  top_level["original_max_position_embeddings"] = 512;
  Json phi_yarn = Rope("yarn", longrope);
  Json all_left_out = {{"num_key_value_heads", nullptr}, {"max_position_embeddings", nullptr},
                       {"rms_norm_eps", nullptr}};
  const Json gemma_ropes = {
      {"rope_parameters",
       {{"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 2e6}}},
        {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 3e4}}}}}};
  const Json gemma = {{"num_attention_heads", 4}, {"hidden_activation", "gelu_pytorch_tanh"}};
  const auto with = [](Json a, const Json& b) {
    a.update(b);
    return a;
  };
  const Json many_heads = {{"num_attention_heads", 32}, {"num_key_value_heads", nullptr}};
  const struct {
    const char* model_class;
    Json changes;
  } cases[] = {
      {"LlamaForCausalLM", Json::object()},
      {"LlamaForCausalLM", all_left_out},
      {"LlamaForCausalLM", {{"head_dim", 128}, {"rope_theta", 500000.0}}},
      {"LlamaForCausalLM", Rope("linear", {{"factor", 2.0}})},
      {"LlamaForCausalLM", Rope("yarn", yarn)},
      {"LlamaForCausalLM", Rope("yarn", betas)},
      {"LlamaForCausalLM", top_level},
      {"LlamaForCausalLM", Rope("llama3", llama3)},
      {"LlamaForCausalLM", {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 7e5}}}}},
      {"MistralForCausalLM", Json::object()},
      {"MistralForCausalLM", {{"sliding_window", nullptr}, {"num_key_value_heads", nullptr}}},
      {"MistralForCausalLM", {{"sliding_window", 300}}},
      {"MixtralForCausalLM", all_left_out},
      {"MixtralForCausalLM", {{"num_local_experts", 16}, {"num_experts_per_tok", 3}}},
      {"Qwen2ForCausalLM", many_heads},
      {"Qwen2ForCausalLM", Rope("yarn", yarn)},
      {"Qwen2ForCausalLM", {{"use_sliding_window", true}, {"max_window_layers", 3},
                            {"sliding_window", 64}}},
      {"Qwen2MoeForCausalLM", with(all_left_out, {{"num_attention_heads", 32}})},
      {"Qwen2MoeForCausalLM", {{"num_experts", 6}, {"shared_expert_intermediate_size", 96}}},
      {"Qwen3ForCausalLM", Json::object()},
      {"Qwen3ForCausalLM", many_heads},
      {"Qwen3ForCausalLM", {{"head_dim", 64}, {"rope_theta", 1e6}}},
      {"Qwen3MoeForCausalLM", {{"norm_topk_prob", true}, {"head_dim", 128}}},
      {"Gemma3ForCausalLM", with(gemma, {{"query_pre_attn_scalar", 256}})},
      {"Gemma3ForCausalLM", with(gemma, {{"num_key_value_heads", nullptr}})},
      {"Gemma3ForCausalLM", with(gemma, {{"head_dim", 64}, {"query_pre_attn_scalar", 64},
                                         {"rope_local_base_freq", 5000.0}, {"rope_theta", 3e5},
                                         {"final_logit_softcapping", 30.0}})},
      {"Gemma3ForCausalLM", with(gemma, gemma_ropes)},
      {"Gemma3ForCausalLM", with(gemma, {{"num_hidden_layers", 3}, {"sliding_window", 16}})},
      {"Gemma3ForCausalLM", with(gemma, Rope("linear", {{"factor", 8.0}}))},
      {"Phi3ForCausalLM", Json::object()},
      {"Phi3ForCausalLM", {{"sliding_window", 262144}, {"partial_rotary_factor", 0.75}}},
      {"Phi3ForCausalLM", {{"sliding_window", 1023}}},
      {"Phi3ForCausalLM", with(Rope("longrope", longrope),
                               {{"original_max_position_embeddings", 512}})},
      {"Phi3ForCausalLM", with(Rope("longrope", stretched),
                               {{"original_max_position_embeddings", 512}})},
      {"Phi3ForCausalLM", with(phi_yarn, {{"original_max_position_embeddings", 512}})}};
  for (const auto& one : cases) {
    SCOPED_TRACE(std::string(one.model_class) + " " + one.changes.dump());
    LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec,
                             ParseDecoderSpec(Config(one.model_class, one.changes)));
    LWQ_ASSERT_OK_AND_ASSIGN(const GgufModel model, MakeGgufModel(spec, ""));
    EXPECT_EQ(model.num_heads, spec.num_heads);
    EXPECT_EQ(model.num_kv_heads, spec.num_kv_heads);
    ExpectSameModel(LlamaCppModel(model), spec);
  }
}

TEST(GgufModelKeysTest, SampleHasLlamasKeys) {
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, ReadDecoderSpec(testing::SampleModelPath()));
  LWQ_ASSERT_OK_AND_ASSIGN(const GgufModel model, MakeGgufModel(spec, "books"));
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
  EXPECT_TRUE(model.rope_tensors.empty());
}

TEST(GgufModelKeysTest, HeadSizesAreThereWhereTheyDoNotFollow) {
  LWQ_ASSERT_OK_AND_ASSIGN(GgufModel model, Keys(Config("LlamaForCausalLM")));
  EXPECT_EQ(model.metadata.Find("llama.attention.key_length"), nullptr);
  EXPECT_EQ(model.metadata.Find("general.name"), nullptr);
  LWQ_ASSERT_OK_AND_ASSIGN(model, Keys(Config("LlamaForCausalLM", {{"head_dim", 128}})));
  EXPECT_EQ(KeyOf<uint32_t>(model, "llama.attention.key_length"), 128u);
  EXPECT_EQ(KeyOf<uint32_t>(model, "llama.rope.dimension_count"), 128u);
  // Qwen3's heads have 128 values where nothing says how many.
  LWQ_ASSERT_OK_AND_ASSIGN(model, Keys(Config("Qwen3ForCausalLM")));
  EXPECT_EQ(KeyOf<uint32_t>(model, "qwen3.attention.key_length"), 128u);
}

TEST(GgufModelKeysTest, ExpertsHaveTheirNumbersAndSizes) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      GgufModel model,
      Keys(Config("Qwen3MoeForCausalLM", {{"num_local_experts", 64},  // as transformers 5 writes it
                                          {"num_experts_per_tok", 8},
                                          {"moe_intermediate_size", 96},
                                          {"norm_topk_prob", true}})));
  EXPECT_EQ(KeyOf<uint32_t>(model, "qwen3moe.expert_count"), 64u);
  EXPECT_EQ(KeyOf<uint32_t>(model, "qwen3moe.expert_feed_forward_length"), 96u);
  EXPECT_EQ(model.metadata.Find("qwen3moe.expert_shared_feed_forward_length"), nullptr);
  LWQ_ASSERT_OK_AND_ASSIGN(
      model, Keys(Config("Qwen2MoeForCausalLM", {{"shared_expert_intermediate_size", 160}})));
  EXPECT_EQ(KeyOf<uint32_t>(model, "qwen2moe.expert_feed_forward_length"), 1408u);
  EXPECT_EQ(KeyOf<uint32_t>(model, "qwen2moe.expert_shared_feed_forward_length"), 160u);
}

// The numbers of Llama 3.2: short waves stay, long ones are 32 times as long.
TEST(GgufModelKeysTest, Llama3RopeIsATensorOfDivisors) {
  Json changes = Rope("llama3", {{"factor", 32.0},
                                 {"low_freq_factor", 1.0},
                                 {"high_freq_factor", 4.0},
                                 {"original_max_position_embeddings", 8192}});
  changes["rope_theta"] = 500000.0;
  LWQ_ASSERT_OK_AND_ASSIGN(const GgufModel model, Keys(Config("LlamaForCausalLM", changes)));
  ASSERT_EQ(model.rope_tensors.size(), 1u);
  const std::vector<float>& divisors = model.rope_tensors[0].values;
  ASSERT_EQ(divisors.size(), 32u);
  // Waves of 2 pi 500000^(i / 32) tokens: up to 2048 they stay, from 8192 on they are stretched.
  EXPECT_EQ(divisors[14], 1.0f);   // 1955 tokens
  EXPECT_EQ(divisors[18], 32.0f);  // 10084
  // 2946 tokens: (8192 / 2946 - 1) / 3 = 0.593 of the way, 1 / (0.407 / 32 + 0.593).
  EXPECT_NEAR(divisors[15], 1.6503, 2e-3);
  EXPECT_EQ(model.metadata.Find("llama.rope.scaling.type"), nullptr);
}

// llama.cpp has no windows there: up to the smallest one it computes the same.
TEST(GgufModelKeysTest, ContextEndsWithAWindowThatLlamaCppDoesNotHave) {
  LWQ_ASSERT_OK_AND_ASSIGN(GgufModel model,
                           Keys(Config("MistralForCausalLM", {{"sliding_window", 300}})));
  EXPECT_EQ(KeyOf<uint32_t>(model, "llama.context_length"), 300u);
  EXPECT_EQ(model.metadata.Find("llama.attention.sliding_window"), nullptr);
  LWQ_ASSERT_OK_AND_ASSIGN(model, Keys(Config("Phi3ForCausalLM", {{"sliding_window", 262144}})));
  EXPECT_EQ(KeyOf<uint32_t>(model, "phi3.context_length"), 2048u);
}

TEST(GgufModelKeysTest, WhatWouldRunWrongIsRefused) {
  const std::vector<double> factors(32, 2.0);
  const Json gemma = {{"num_attention_heads", 4}};
  const auto with = [](Json a, const Json& b) {
    a.update(b);
    return a;
  };
  const Json local = {
      {"rope_parameters",
       {{"full_attention", {{"rope_type", "default"}, {"rope_theta", 1e6}}},
        {"sliding_attention",
         {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 1e4}}}}}};
  std::vector<std::string> types(12, "full_attention");
  const Json llama3 = {{"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 256}};
  const struct {
    const char* model_class;
    Json change;
    const char* reason;
    const char* said;
  } cases[] = {
      {"MambaForCausalLM", Json::object(), "ARCH_UNSUPPORTED", "MambaForCausalLM"},
      {"Gemma2ForCausalLM", Json::object(), "ARCH_UNSUPPORTED", "Gemma2ForCausalLM"},
      {"LlamaForCausalLM", {{"hidden_act", "gelu_new"}}, "GGUF_UNSUPPORTED", "silu"},
      {"LlamaForCausalLM", Rope("dynamic", {{"factor", 2.0}}), "GGUF_UNSUPPORTED", "dynamic"},
      {"LlamaForCausalLM",
       Rope("yarn", {{"factor", 4.0}, {"attention_factor", 1.0}}),
       "GGUF_UNSUPPORTED",
       "attention_factor"},
      {"LlamaForCausalLM",
       Rope("yarn", {{"factor", 4.0}, {"truncate", false}}),
       "GGUF_UNSUPPORTED",
       "truncate"},
      {"LlamaForCausalLM",
       Rope("longrope", {{"long_factor", factors}, {"short_factor", factors}}),
       "GGUF_UNSUPPORTED",
       "longrope"},
      {"Qwen2ForCausalLM", {{"head_dim", 128}}, "GGUF_UNSUPPORTED", "head_dim"},
      {"Qwen2ForCausalLM", Rope("llama3", llama3), "GGUF_UNSUPPORTED", "llama3"},
      {"Phi3ForCausalLM", {{"head_dim", 32}}, "GGUF_UNSUPPORTED", "head_dim"},
      {"Qwen3ForCausalLM", {{"attention_bias", true}}, "GGUF_UNSUPPORTED", "self_attn.q_proj"},
      {"Qwen3MoeForCausalLM", Json::object(), "GGUF_UNSUPPORTED", "norm_topk_prob"},
      {"Qwen2MoeForCausalLM", {{"norm_topk_prob", true}}, "GGUF_UNSUPPORTED", "norm_topk_prob"},
      {"Qwen3MoeForCausalLM",
       {{"norm_topk_prob", true}, {"mlp_only_layers", {3}}},
       "GGUF_UNSUPPORTED",
       "layer 3"},
      {"Gemma3ForCausalLM", with(gemma, {{"query_pre_attn_scalar", 64}}), "GGUF_UNSUPPORTED",
       "query_pre_attn_scalar"},
      {"Gemma3ForCausalLM", with(gemma, {{"layer_types", types}}), "GGUF_UNSUPPORTED", "layer 0"},
      {"Gemma3ForCausalLM", with(gemma, {{"sliding_window_pattern", 5}}), "GGUF_UNSUPPORTED",
       "layer 4"},
      {"Gemma3ForCausalLM", with(gemma, {{"attention_bias", true}}), "GGUF_UNSUPPORTED", "bias"},
      {"Gemma3ForCausalLM", with(gemma, local), "GGUF_UNSUPPORTED", "window"},
      {"Gemma3ForCausalLM", with(gemma, Rope("yarn", {{"factor", 4.0}})), "GGUF_UNSUPPORTED",
       "linear"},
  };
  for (const auto& one : cases) {
    EXPECT_THAT(Keys(Config(one.model_class, one.change)),
                FailsWith(one.reason, HasSubstr(one.said)))
        << one.model_class << one.change;
  }
}

}  // namespace
}  // namespace lwq
