#include "worker/engine/model/gemma_config.h"

#include <cmath>

#include "base/status_macros.h"

namespace lwq {

absl::StatusOr<double> ReadSoftCap(const ConfigReader& config, const char* field,
                                   double by_default) {
  return config.Number(field, 1e-3, 1e6, config.IsNull(field) ? 0 : by_default);
}

absl::StatusOr<LlamaShapedConfig> ReadGemmaConfig(const ConfigReader& config,
                                                  int64_t default_max_positions) {
  const LlamaDefaults defaults = {.num_kv_heads = 4,
                                  .head_dim = 256,
                                  .max_positions = default_max_positions,
                                  .tied_embeddings = true,
                                  .activation_field = "hidden_activation",
                                  .activation = Activation::kGeluTanh};
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadLlamaShapedConfig(config, defaults));
  (void)config.Has("hidden_act");  // transformers reads hidden_activation alone
  LWQ_ASSIGN_OR_RETURN(const bool both_ways, config.Bool("use_bidirectional_attention", false));
  if (both_ways) return config.Refuse("use_bidirectional_attention", "false");
  LlamaLayerOptions& options = shape.options;
  LWQ_ASSIGN_OR_RETURN(options.attention_bias, config.Bool("attention_bias", false));
  options.attention_output_bias = options.attention_bias;
  options.sandwich_norms = true;
  DecoderSpec& spec = shape.spec;
  LWQ_ASSIGN_OR_RETURN(const double scalar, config.Number("query_pre_attn_scalar", 1e-6, 1e9, 256));
  spec.attention_scale = 1 / std::sqrt(scalar);
  spec.norm_offset = 1;
  spec.embedding.scale = std::sqrt(static_cast<double>(spec.hidden_size));
  return shape;
}

}  // namespace lwq
