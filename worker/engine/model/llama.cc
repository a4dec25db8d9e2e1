// Llama 1 to 3.x and the models that use its code: SmolLM, TinyLlama, Solar.
#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/llama_config.h"

namespace lwq {
namespace {

absl::StatusOr<DecoderSpec> ParseLlama(absl::string_view config_json) {
  LWQ_ASSIGN_OR_RETURN(const ConfigReader config, ConfigReader::Parse(config_json));
  LWQ_ASSIGN_OR_RETURN(DecoderSpec spec, ReadLlamaShapedConfig(config));
  LWQ_ASSIGN_OR_RETURN(spec.attention_bias, config.Bool("attention_bias", false));
  spec.attention_output_bias = spec.attention_bias;
  LWQ_ASSIGN_OR_RETURN(spec.mlp_bias, config.Bool("mlp_bias", false));
  return spec;
}

}  // namespace

extern const ModelFamilyDef llama_family;
const ModelFamilyDef llama_family = {
    .name = "llama", .architectures = {"LlamaForCausalLM"}, .parse = &ParseLlama};

}  // namespace lwq
