// The first Qwen's own config.json. Its logits: families_golden_test.cc.
#include "absl/strings/str_replace.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/model/decoder_spec.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

// The fields that published chat models have, and smaller sizes.
constexpr char kConfig[] = R"({
  "architectures": ["QWenLMHeadModel"],
  "auto_map": {"AutoConfig": "configuration_qwen.QWenConfig"},
  "attn_dropout_prob": 0.0, "bf16": false, "emb_dropout_prob": 0.0, "fp16": false, "fp32": false,
  "hidden_size": 512, "intermediate_size": 2752, "initializer_range": 0.02, "kv_channels": 128,
  "layer_norm_epsilon": 1e-06, "max_position_embeddings": 32768, "model_type": "qwen",
  "no_bias": true, "num_attention_heads": 4, "num_hidden_layers": 3, "onnx_safe": null,
  "rotary_emb_base": 10000, "rotary_pct": 1.0, "scale_attn_weights": true, "seq_length": 8192,
  "softmax_in_fp32": false, "tie_word_embeddings": false, "tokenizer_class": "QWenTokenizer",
  "transformers_version": "4.32.0", "use_cache": true, "use_cache_kernel": false,
  "use_cache_quantization": false, "use_dynamic_ntk": true, "use_flash_attn": "auto",
  "use_logn_attn": true, "vocab_size": 1024})";

std::string With(absl::string_view field, absl::string_view other) {
  const std::string text = absl::StrReplaceAll(kConfig, {{field, other}});
  EXPECT_NE(text, kConfig) << field;
  return text;
}

TEST(QwenTest, NamesAndSizesAreThoseOfThePublishedModels) {
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, ParseDecoderSpec(kConfig));
  EXPECT_EQ(spec.family, "qwen");
  EXPECT_EQ(spec.intermediate_size, 1376);
  EXPECT_EQ(spec.num_kv_heads, 4);
  EXPECT_EQ(spec.head_dim, 128);
  EXPECT_EQ(spec.embedding.tensor, "transformer.wte.weight");
  EXPECT_EQ(spec.head.norm().tensor, "transformer.ln_f.weight");
  EXPECT_EQ(spec.head.linear().shape.module, "lm_head");
  std::vector<std::string> modules, units;
  for (const LinearSpec& linear : spec.layers[2].linears) {
    modules.push_back(linear.shape.module);
    EXPECT_EQ(linear.bias, linear.shape.role == LinearRole::kQueryKeyValue);
  }
  for (const UnitSpec& unit : spec.layers[2].units) units.push_back(unit.name);
  EXPECT_THAT(modules,
              ::testing::ElementsAre("transformer.h.2.attn.c_attn", "transformer.h.2.attn.c_proj",
                                     "transformer.h.2.mlp.w2", "transformer.h.2.mlp.w1",
                                     "transformer.h.2.mlp.c_proj"));
  // What engines fuse is one unit.
  EXPECT_THAT(units, ::testing::ElementsAre("h.2.attn.c_attn", "h.2.attn.c_proj",
                                            "h.2.mlp.gate_up_proj", "h.2.mlp.c_proj"));
  EXPECT_EQ(spec.layers[2].linears[0].shape.out_features, 3 * 512);
}

// Past its training dynamic NTK and logn change what the model computes; lwq has neither, and stops
// there.
TEST(QwenTest, GoesAsFarAsItsTrainingWhereSomethingChangesBehindIt) {
  const auto positions = [](const std::string& config) {
    const absl::StatusOr<DecoderSpec> spec = ParseDecoderSpec(config);
    EXPECT_OK(spec.status());
    return spec.ok() ? spec->max_positions : 0;
  };
  EXPECT_EQ(positions(kConfig), 8192);
  const std::string no_ntk = With("\"use_dynamic_ntk\": true", "\"use_dynamic_ntk\": false");
  EXPECT_EQ(positions(no_ntk), 8192);
  const std::string no_logn = With("\"use_logn_attn\": true", "\"use_logn_attn\": false");
  EXPECT_EQ(positions(no_logn), 8192);
  EXPECT_EQ(positions(absl::StrReplaceAll(
                no_ntk, {{"\"use_logn_attn\": true", "\"use_logn_attn\": false"}})),
            32768);
  EXPECT_EQ(positions(With("\"seq_length\": 8192", "\"seq_length\": 65536")), 32768);
}

TEST(QwenTest, RefusesWhatItCannotBe) {
  const struct {
    const char *field, *other, *named;
  } cases[] = {
      {"\"intermediate_size\": 2752", "\"intermediate_size\": 2751", "intermediate_size"},
      {"\"kv_channels\": 128", "\"kv_channels\": 64", "kv_channels"},
      {"\"kv_channels\": 128", "\"num_key_value_heads\": 2", "kv_channels"},
      {"\"rotary_pct\": 1.0", "\"rotary_pct\": 0.001", "rotary_pct"},
      {"\"scale_attn_weights\": true", "\"scale_attn_weights\": false", "scale_attn_weights"},
      {"\"use_cache_quantization\": false", "\"use_cache_quantization\": true",
       "use_cache_quantization"}};
  for (const auto& c : cases) {
    EXPECT_THAT(ParseDecoderSpec(With(c.field, c.other)),
                FailsWith("CONFIG_INVALID", HasSubstr(c.named)));
  }
  EXPECT_THAT(ParseDecoderSpec(With("\"onnx_safe\": null", "\"visual\": {\"width\": 1}")),
              FailsWith("ARCH_UNSUPPORTED", HasSubstr("visual")));  // Qwen-VL's
}

}  // namespace
}  // namespace lwq
