// Phi-3, Phi-3.5 and Phi-4: q, k and v are one linear, gate and up another; long contexts by
// longrope; in Phi-4-mini only a part of each head is rotated.
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/llama_config.h"

namespace lwq {
namespace {

absl::StatusOr<DecoderSpec> ParsePhi3(const ConfigReader& config) {
  const LlamaDefaults defaults = {.max_positions = 4096, .norm_epsilon = 1e-5};
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadLlamaShapedConfig(config, defaults));
  RopeDefaults rope = shape.rope_defaults();
  rope.phi3 = true;
  rope.original_max_positions = 4096;
  LWQ_RETURN_IF_ERROR(ReadSharedRope(config, rope, shape));
  LWQ_ASSIGN_OR_RETURN(const int64_t window, ReadWindow(config, 0));
  for (AttentionSpec& attention : shape.attention) attention.sliding_window = window;
  // Of Phi-4-mini, switched off: other windows in some layers, and stretched positions.
  LWQ_RETURN_IF_ERROR(config.Int("full_attn_mod", 1, 1, 1).status());
  LWQ_RETURN_IF_ERROR(config.Int("interpolate_factor", 1, 1, 1).status());
  shape.options.fused_attention = shape.options.fused_mlp = true;
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef phi3_family;
const ModelFamilyDef phi3_family = {
    .name = "phi3", .architectures = {"Phi3ForCausalLM"}, .parse = &ParsePhi3};

}  // namespace lwq
