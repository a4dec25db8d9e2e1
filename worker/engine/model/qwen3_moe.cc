// Qwen3-MoE: Qwen3 with a mixture of experts. Where windows are on, all layers have them.
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/experts_config.h"

namespace lwq {
namespace {

absl::StatusOr<DecoderSpec> ParseQwen3Moe(const ConfigReader& config) {
  const LlamaDefaults defaults = {.num_kv_heads = 4, .max_positions = 32768};
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadLlamaShapedConfig(config, defaults));
  LWQ_RETURN_IF_ERROR(ReadSharedRope(config, shape.rope_defaults(), shape));
  LWQ_ASSIGN_OR_RETURN(const bool use_window, config.Bool("use_sliding_window", false));
  LWQ_ASSIGN_OR_RETURN(const int64_t window, ReadWindow(config, 4096));
  (void)config.Has("max_window_layers");  // transformers does not read it
  for (AttentionSpec& attention : shape.attention) {
    attention.sliding_window = use_window ? window : 0;
  }
  LlamaLayerOptions& options = shape.options;
  LWQ_ASSIGN_OR_RETURN(options.attention_bias, config.Bool("attention_bias", false));
  options.attention_output_bias = options.attention_bias;
  options.qk_norm = true;
  LWQ_RETURN_IF_ERROR(ReadQwenExperts(config, 128, 8, 768, shape));
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef qwen3_moe_family;
const ModelFamilyDef qwen3_moe_family = {
    .name = "qwen3_moe", .architectures = {"Qwen3MoeForCausalLM"}, .parse = &ParseQwen3Moe};

}  // namespace lwq
