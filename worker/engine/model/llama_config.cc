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
constexpr int64_t kMaxWindow = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxPositions = int64_t{1} << 31;

absl::Status ReadHeads(const ConfigReader& config, const LlamaDefaults& defaults,
                       DecoderSpec& spec) {
  LWQ_ASSIGN_OR_RETURN(const int64_t heads, config.Int("num_attention_heads", 1, kMaxHeads));
  // A null counts as many as heads, also where the default is another number.
  const bool as_heads = defaults.num_kv_heads == 0 || config.IsNull("num_key_value_heads");
  LWQ_ASSIGN_OR_RETURN(
      const int64_t kv_heads,
      config.Int("num_key_value_heads", 1, heads, as_heads ? heads : defaults.num_kv_heads));
  if (heads % kv_heads != 0) {
    return config.Refuse("num_key_value_heads",
                         absl::StrCat("a divisor of num_attention_heads ", heads));
  }
  if (!config.Has("head_dim") && defaults.head_dim == 0 && spec.hidden_size % heads != 0) {
    return config.Refuse(
        "num_attention_heads",
        absl::StrCat("a divisor of hidden_size ", spec.hidden_size, " where there is no head_dim"));
  }
  LWQ_ASSIGN_OR_RETURN(
      const int64_t head_dim,
      config.Int("head_dim", 2, kMaxHeadDim,
                 defaults.head_dim != 0 ? defaults.head_dim : spec.hidden_size / heads));
  if (head_dim % 2 != 0 || head_dim > kMaxHeadDim) {
    return config.Refuse("head_dim", absl::StrCat("an even number up to ", kMaxHeadDim));
  }
  spec.num_heads = static_cast<int>(heads);
  spec.num_kv_heads = static_cast<int>(kv_heads);
  spec.head_dim = static_cast<int>(head_dim);
  return absl::OkStatus();
}

struct NamedActivation {
  absl::string_view name;
  Activation activation;
};
constexpr NamedActivation kActivations[] = {{"silu", Activation::kSilu},
                                            {"swish", Activation::kSilu},
                                            {"gelu_pytorch_tanh", Activation::kGeluTanh},
                                            {"gelu_new", Activation::kGeluTanh}};

absl::StatusOr<Activation> ReadActivation(const ConfigReader& config,
                                          const LlamaDefaults& defaults) {
  if (!config.Has(defaults.activation_field)) return defaults.activation;
  LWQ_ASSIGN_OR_RETURN(const std::string name, config.String(defaults.activation_field));
  for (const NamedActivation& known : kActivations) {
    if (name == known.name) return known.activation;
  }
  return config.Refuse(defaults.activation_field, "silu, swish, gelu_pytorch_tanh, gelu_new");
}

}  // namespace

RopeDefaults LlamaShapedConfig::rope_defaults() const {
  RopeDefaults defaults;
  defaults.max_positions = spec.max_positions;
  defaults.head_dim = spec.head_dim;
  return defaults;
}

absl::StatusOr<LlamaShapedConfig> ReadLlamaShapedConfig(const ConfigReader& config,
                                                        const LlamaDefaults& defaults) {
  LlamaShapedConfig result;
  DecoderSpec& spec = result.spec;
  LWQ_ASSIGN_OR_RETURN(const int64_t layers, config.Int("num_hidden_layers", 1, kMaxLayers));
  LWQ_ASSIGN_OR_RETURN(spec.hidden_size, config.Int("hidden_size", 1, kMaxHidden));
  LWQ_ASSIGN_OR_RETURN(spec.intermediate_size,
                       config.Int("intermediate_size", 1, kMaxIntermediate));
  LWQ_ASSIGN_OR_RETURN(spec.vocab_size, config.Int("vocab_size", 1, kMaxVocabulary));
  LWQ_ASSIGN_OR_RETURN(spec.max_positions, config.Int("max_position_embeddings", 1, kMaxPositions,
                                                      defaults.max_positions));
  LWQ_ASSIGN_OR_RETURN(spec.norm_epsilon,
                       config.Number("rms_norm_eps", 0, 1, defaults.norm_epsilon));
  LWQ_ASSIGN_OR_RETURN(spec.activation, ReadActivation(config, defaults));
  LWQ_ASSIGN_OR_RETURN(result.tied_embeddings,
                       config.Bool("tie_word_embeddings", defaults.tied_embeddings));
  // transformers lets any of these models look ahead when it is off.
  LWQ_ASSIGN_OR_RETURN(const bool causal, config.Bool("is_causal", true));
  if (!causal) return config.Refuse("is_causal", "true");
  LWQ_RETURN_IF_ERROR(ReadHeads(config, defaults, spec));
  result.attention.resize(static_cast<size_t>(layers));
  LWQ_ASSIGN_OR_RETURN(spec.bos_token_id, config.TokenId("bos_token_id", spec.vocab_size));
  LWQ_ASSIGN_OR_RETURN(spec.eos_token_id, config.TokenId("eos_token_id", spec.vocab_size));
  return result;
}

absl::Status ReadSharedRope(const ConfigReader& config, const RopeDefaults& defaults,
                            LlamaShapedConfig& shape) {
  LWQ_ASSIGN_OR_RETURN(const RopeSpec rope, ReadRope(config, defaults));
  for (AttentionSpec& attention : shape.attention) attention.rope = rope;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ReadWindow(const ConfigReader& config, int64_t by_default) {
  constexpr char kField[] = "sliding_window";
  return config.Int(kField, 1, kMaxWindow, config.IsNull(kField) ? 0 : by_default);
}

absl::StatusOr<std::vector<bool>> SetWindows(const ConfigReader& config, int64_t window,
                                             const std::function<bool(int layer)>& by_default,
                                             LlamaShapedConfig& shape) {
  constexpr char kField[] = "layer_types";
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> types, config.Strings(kField));
  if (config.Has(kField) && types.size() != shape.attention.size()) {
    return config.Refuse(kField,
                         absl::StrCat("a type for each of ", shape.attention.size(), " layers"));
  }
  std::vector<bool> sliding;
  for (size_t at = 0; at < shape.attention.size(); ++at) {
    sliding.push_back(types.empty() ? by_default(static_cast<int>(at))
                                    : types[at] == "sliding_attention");
    if (!sliding[at] && !types.empty() && types[at] != "full_attention") {
      return config.Refuse(kField, "full_attention, sliding_attention");
    }
    if (!sliding[at]) continue;
    if (window == 0) {
      return config.Refuse("sliding_window", "a size, where layers have sliding attention");
    }
    shape.attention[at].sliding_window = window;
  }
  return sliding;
}

}  // namespace lwq
