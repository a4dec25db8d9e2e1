#include "worker/engine/model/llama_config.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHidden = 131072;
constexpr int64_t kMaxIntermediate = 1 << 20;
constexpr int64_t kMaxVocabulary = 4 << 20;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxPositions = int64_t{1} << 31;

absl::Status ReadHeads(const ConfigReader& config, DecoderSpec& spec) {
  LWQ_ASSIGN_OR_RETURN(const int64_t heads, config.Int("num_attention_heads", 1, kMaxHeads));
  LWQ_ASSIGN_OR_RETURN(const int64_t kv_heads, config.Int("num_key_value_heads", 1, heads, heads));
  if (heads % kv_heads != 0) {
    return config.Refuse("num_key_value_heads",
                         absl::StrCat("a divisor of num_attention_heads ", heads));
  }
  if (!config.Has("head_dim") && spec.hidden_size % heads != 0) {
    return config.Refuse(
        "num_attention_heads",
        absl::StrCat("a divisor of hidden_size ", spec.hidden_size, " where there is no head_dim"));
  }
  LWQ_ASSIGN_OR_RETURN(const int64_t head_dim,
                       config.Int("head_dim", 2, kMaxHeadDim, spec.hidden_size / heads));
  if (head_dim % 2 != 0 || head_dim > kMaxHeadDim) {
    return config.Refuse("head_dim", absl::StrCat("an even number up to ", kMaxHeadDim));
  }
  spec.num_heads = static_cast<int>(heads);
  spec.num_kv_heads = static_cast<int>(kv_heads);
  spec.head_dim = static_cast<int>(head_dim);
  return absl::OkStatus();
}

// The scaling's own fields, in `scaling`: transformers 4 keeps them in "rope_scaling" beside a
// top-level rope_theta, transformers 5 all together in "rope_parameters".
absl::Status ReadRopeScaling(const ConfigReader& scaling, int64_t max_positions, RopeSpec& rope) {
  const char* type_field = scaling.Has("rope_type") ? "rope_type" : "type";
  LWQ_ASSIGN_OR_RETURN(rope.type, scaling.String(type_field, "default"));
  LWQ_ASSIGN_OR_RETURN(rope.theta, scaling.Number("rope_theta", 1, 1e12, rope.theta));
  if (rope.type == "default") return absl::OkStatus();
  if (rope.type != "linear" && rope.type != "llama3") {
    return scaling.Refuse(type_field, "default, linear, llama3");
  }
  LWQ_ASSIGN_OR_RETURN(rope.factor, scaling.Number("factor", 1e-3, 1e6));
  if (rope.type == "linear") return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(rope.low_freq_factor, scaling.Number("low_freq_factor", 1e-3, 1e6));
  LWQ_ASSIGN_OR_RETURN(rope.high_freq_factor, scaling.Number("high_freq_factor", 1e-3, 1e6));
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    return scaling.Refuse("high_freq_factor",
                          absl::StrCat("more than low_freq_factor ", rope.low_freq_factor));
  }
  LWQ_ASSIGN_OR_RETURN(rope.original_max_positions, scaling.Int("original_max_position_embeddings",
                                                                1, kMaxPositions, max_positions));
  return absl::OkStatus();
}

absl::Status ReadRope(const ConfigReader& config, int64_t max_positions, RopeSpec& rope) {
  LWQ_ASSIGN_OR_RETURN(rope.theta, config.Number("rope_theta", 1, 1e12, 10000));
  for (const char* field : {"rope_parameters", "rope_scaling"}) {
    if (!config.Has(field)) continue;
    LWQ_ASSIGN_OR_RETURN(const ConfigReader scaling, config.Object(field));
    return ReadRopeScaling(scaling, max_positions, rope);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LlamaShapedConfig> ReadLlamaShapedConfig(const ConfigReader& config) {
  LlamaShapedConfig result;
  DecoderSpec& spec = result.spec;
  LWQ_ASSIGN_OR_RETURN(const int64_t layers, config.Int("num_hidden_layers", 1, kMaxLayers));
  result.num_layers = static_cast<int>(layers);
  LWQ_ASSIGN_OR_RETURN(spec.hidden_size, config.Int("hidden_size", 1, kMaxHidden));
  LWQ_ASSIGN_OR_RETURN(spec.intermediate_size,
                       config.Int("intermediate_size", 1, kMaxIntermediate));
  LWQ_ASSIGN_OR_RETURN(spec.vocab_size, config.Int("vocab_size", 1, kMaxVocabulary));
  LWQ_ASSIGN_OR_RETURN(spec.max_positions,
                       config.Int("max_position_embeddings", 1, kMaxPositions, 2048));
  LWQ_ASSIGN_OR_RETURN(spec.norm_epsilon, config.Number("rms_norm_eps", 0, 1, 1e-6));
  LWQ_ASSIGN_OR_RETURN(spec.activation, config.String("hidden_act", "silu"));
  if (spec.activation != "silu") return config.Refuse("hidden_act", "silu");
  LWQ_ASSIGN_OR_RETURN(result.tied_embeddings, config.Bool("tie_word_embeddings", false));
  LWQ_RETURN_IF_ERROR(ReadHeads(config, spec));
  LWQ_RETURN_IF_ERROR(ReadRope(config, spec.max_positions, result.options.attention.rope));
  LWQ_ASSIGN_OR_RETURN(spec.bos_token_id, config.TokenId("bos_token_id", spec.vocab_size));
  LWQ_ASSIGN_OR_RETURN(spec.eos_token_id, config.TokenId("eos_token_id", spec.vocab_size));
  return result;
}

}  // namespace lwq
