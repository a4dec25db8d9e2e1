// Llama 1 to 3.x and the models that use its code: SmolLM, TinyLlama, Solar.
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/llama_config.h"

namespace lwq {
namespace {

absl::StatusOr<DecoderSpec> ParseLlama(const ConfigReader& config) {
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadLlamaShapedConfig(config));
  LWQ_RETURN_IF_ERROR(ReadSharedRope(config, shape.rope_defaults(), shape));
  LlamaLayerOptions& options = shape.options;
  LWQ_ASSIGN_OR_RETURN(options.attention_bias, config.Bool("attention_bias", false));
  options.attention_output_bias = options.attention_bias;
  LWQ_ASSIGN_OR_RETURN(options.mlp_bias, config.Bool("mlp_bias", false));
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef llama_family;
const ModelFamilyDef llama_family = {
    .name = "llama", .architectures = {"LlamaForCausalLM"}, .parse = &ParseLlama};

}  // namespace lwq
