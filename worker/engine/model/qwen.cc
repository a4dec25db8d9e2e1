// The first Qwen: Llama's shape under GPT-2's names, with q, k and v in one linear that has a bias.
// After modeling_qwen.py of the published models, whose config.json has fields of its own.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/llama_config.h"

namespace lwq {
namespace {

constexpr int64_t kTrainedPositions = 8192;  // where config.json does not say
constexpr int64_t kMaxPositions = int64_t{1} << 31;

constexpr LlamaNames kNames = {.model = "transformer",
                               .layers = "h",
                               .embedding = "wte",
                               .final_norm = "ln_f",
                               .attention_norm = "ln_1",
                               .mlp_norm = "ln_2",
                               .query_key_value = "attn.c_attn",
                               .output = "attn.c_proj",
                               .gate_up = "mlp.gate_up_proj",
                               .gate = "mlp.w2",  // w1(x) * silu(w2(x))
                               .up = "mlp.w1",
                               .down = "mlp.c_proj"};

// Positions past those of the training change all rotations (use_dynamic_ntk) and the scale of
// attention (use_logn_attn); up to there neither does anything, so that is how far the model goes.
absl::Status ReadPositions(const ConfigReader& config, DecoderSpec& spec) {
  LWQ_ASSIGN_OR_RETURN(const int64_t trained,
                       config.Int("seq_length", 1, kMaxPositions, kTrainedPositions));
  LWQ_ASSIGN_OR_RETURN(const bool stretches, config.Bool("use_dynamic_ntk", true));
  LWQ_ASSIGN_OR_RETURN(const bool rescales, config.Bool("use_logn_attn", true));
  if (stretches || rescales) spec.max_positions = std::min(spec.max_positions, trained);
  return absl::OkStatus();
}

absl::Status ReadQwenRope(const ConfigReader& config, LlamaShapedConfig& shape) {
  RopeSpec rope;
  LWQ_ASSIGN_OR_RETURN(rope.theta, config.Number("rotary_emb_base", 1, 1e12, rope.theta));
  LWQ_ASSIGN_OR_RETURN(const double part, config.Number("rotary_pct", 0, 1, 1));
  if (part != 1) {
    const int head_dim = shape.spec.head_dim;
    rope.rotated = static_cast<int>(part * head_dim);
    if (rope.rotated < 2 || rope.rotated % 2 != 0) {
      return config.Refuse("rotary_pct",
                           absl::StrCat("an even part of a head of ", head_dim, " values"));
    }
  }
  for (AttentionSpec& attention : shape.attention) attention.rope = rope;
  return absl::OkStatus();
}

// Fields that published files have and that change nothing here, but for one.
absl::Status ReadOthers(const ConfigReader& config) {
  for (const char* field : {"bf16", "fp16", "fp32", "softmax_in_fp32", "use_cache_kernel"}) {
    LWQ_RETURN_IF_ERROR(config.Bool(field, false).status());
  }
  LWQ_ASSIGN_OR_RETURN(const bool scaled, config.Bool("scale_attn_weights", true));
  if (!scaled) return config.Refuse("scale_attn_weights", "true");
  LWQ_ASSIGN_OR_RETURN(const bool quantized, config.Bool("use_cache_quantization", false));
  return quantized ? config.Refuse("use_cache_quantization", "false") : absl::OkStatus();
}

absl::StatusOr<DecoderSpec> ParseQwen(const ConfigReader& config) {
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape,
                       ReadLlamaShapedConfig(config, {.max_positions = kTrainedPositions}));
  DecoderSpec& spec = shape.spec;
  LWQ_ASSIGN_OR_RETURN(spec.norm_epsilon,
                       config.Number("layer_norm_epsilon", 0, 1, spec.norm_epsilon));
  if (spec.intermediate_size % 2 != 0) {
    return config.Refuse("intermediate_size", "an even number, of gate and up together");
  }
  spec.intermediate_size /= 2;
  LWQ_ASSIGN_OR_RETURN(const int64_t channels, config.Int("kv_channels", 1, kMaxPositions, 128));
  if (channels * spec.num_heads != spec.hidden_size || channels != spec.head_dim ||
      spec.num_kv_heads != spec.num_heads) {
    return config.Refuse("kv_channels", "hidden_size / num_attention_heads, and as many key heads");
  }
  LWQ_RETURN_IF_ERROR(ReadPositions(config, spec));
  LWQ_RETURN_IF_ERROR(ReadQwenRope(config, shape));
  LWQ_RETURN_IF_ERROR(ReadOthers(config));
  LWQ_ASSIGN_OR_RETURN(const bool no_bias, config.Bool("no_bias", true));
  shape.options.fused_attention = true;
  shape.options.attention_bias = true;
  shape.options.attention_output_bias = shape.options.mlp_bias = !no_bias;
  shape.names = kNames;
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef qwen_family;
const ModelFamilyDef qwen_family = {
    .name = "qwen", .architectures = {"QWenLMHeadModel"}, .parse = &ParseQwen};

}  // namespace lwq
