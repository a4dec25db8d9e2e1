// Qwen1.5, Qwen2 and Qwen2.5: Llama's shape with biases of q, k and v.
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/qwen_config.h"

namespace lwq {
namespace {

absl::StatusOr<DecoderSpec> ParseQwen2(const ConfigReader& config) {
  const LlamaDefaults defaults = {.num_kv_heads = 32, .max_positions = 32768};
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadLlamaShapedConfig(config, defaults));
  LWQ_RETURN_IF_ERROR(ReadQwenAttention(config, shape));
  shape.options.attention_bias = true;
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef qwen2_family;
const ModelFamilyDef qwen2_family = {
    .name = "qwen2", .architectures = {"Qwen2ForCausalLM"}, .parse = &ParseQwen2};

}  // namespace lwq
