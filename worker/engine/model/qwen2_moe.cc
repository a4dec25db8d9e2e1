// Qwen1.5-MoE and Qwen2-MoE: Qwen2 with a mixture of experts, and one expert that all tokens share
// through a gate.
#include <cstdint>
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/experts_config.h"

namespace lwq {
namespace {

absl::StatusOr<DecoderSpec> ParseQwen2Moe(const ConfigReader& config) {
  const LlamaDefaults defaults = {.num_kv_heads = 16, .max_positions = 32768};
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadLlamaShapedConfig(config, defaults));
  LWQ_RETURN_IF_ERROR(ReadSharedRope(config, shape.rope_defaults(), shape));
  LWQ_ASSIGN_OR_RETURN(const bool use_window, config.Bool("use_sliding_window", false));
  // transformers writes 0 where windows are off.
  const bool none = config.IsNull("sliding_window");
  LWQ_ASSIGN_OR_RETURN(const int64_t window,
                       config.Int("sliding_window", 0, INT32_MAX, none ? 0 : 4096));
  LWQ_ASSIGN_OR_RETURN(const int64_t end, config.Int("max_window_layers", 0, INT32_MAX, 28));
  // Every other of the first layers, as transformers has it.
  const bool windows = use_window && window > 0;
  LWQ_RETURN_IF_ERROR(
      SetWindows(
          config, windows ? window : 0,
          [&](int layer) { return windows && layer % 2 == 0 && layer < end; }, shape)
          .status());
  LWQ_ASSIGN_OR_RETURN(shape.options.attention_bias, config.Bool("qkv_bias", true));
  LWQ_RETURN_IF_ERROR(ReadQwenExperts(config, 60, 4, 1408, shape));
  LWQ_ASSIGN_OR_RETURN(shape.experts->shared_intermediate_size,
                       config.Int("shared_expert_intermediate_size", 1, 1 << 20, 5632));
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef qwen2_moe_family;
const ModelFamilyDef qwen2_moe_family = {
    .name = "qwen2_moe", .architectures = {"Qwen2MoeForCausalLM"}, .parse = &ParseQwen2Moe};

}  // namespace lwq
