// Qwen3: Llama's shape with norms of each head's queries and keys.
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/qwen_config.h"

namespace lwq {
namespace {

absl::StatusOr<DecoderSpec> ParseQwen3(const ConfigReader& config) {
  const LlamaDefaults defaults = {.num_kv_heads = 32, .head_dim = 128, .max_positions = 32768};
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadLlamaShapedConfig(config, defaults));
  LWQ_RETURN_IF_ERROR(ReadQwenAttention(config, shape));
  LlamaLayerOptions& options = shape.options;
  LWQ_ASSIGN_OR_RETURN(options.attention_bias, config.Bool("attention_bias", false));
  options.attention_output_bias = options.attention_bias;
  options.qk_norm = true;
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef qwen3_family;
const ModelFamilyDef qwen3_family = {
    .name = "qwen3", .architectures = {"Qwen3ForCausalLM"}, .parse = &ParseQwen3};

}  // namespace lwq
