// Mixtral: Mistral with a mixture of experts in every layer.
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/experts_config.h"

namespace lwq {
namespace {

absl::StatusOr<DecoderSpec> ParseMixtral(const ConfigReader& config) {
  const LlamaDefaults defaults = {
      .num_kv_heads = 8, .max_positions = 4096 * 32, .norm_epsilon = 1e-5};
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadLlamaShapedConfig(config, defaults));
  RopeDefaults rope = shape.rope_defaults();
  rope.theta = 1e6;
  LWQ_RETURN_IF_ERROR(ReadSharedRope(config, rope, shape));
  LWQ_ASSIGN_OR_RETURN(const int64_t window, ReadWindow(config, 0));
  for (AttentionSpec& attention : shape.attention) attention.sliding_window = window;
  (void)config.Has("router_jitter_noise");  // while training
  LWQ_ASSIGN_OR_RETURN(LlamaExperts experts, ReadExperts(config, 8, 2, shape.attention.size()));
  experts.intermediate_size = shape.spec.intermediate_size;
  experts.layers.assign(shape.attention.size(), true);
  experts.block = "block_sparse_moe";
  experts.gate = "w1", experts.up = "w3", experts.down = "w2";
  shape.experts = std::move(experts);
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef mixtral_family;
const ModelFamilyDef mixtral_family = {
    .name = "mixtral", .architectures = {"MixtralForCausalLM"}, .parse = &ParseMixtral};

}  // namespace lwq
