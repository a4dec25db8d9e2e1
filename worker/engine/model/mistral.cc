// Mistral: Llama's shape without biases, with one sliding window for all layers, or none.
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/llama_config.h"

namespace lwq {
namespace {

absl::StatusOr<DecoderSpec> ParseMistral(const ConfigReader& config) {
  const LlamaDefaults defaults = {.num_kv_heads = 8, .max_positions = 4096 * 32};
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadLlamaShapedConfig(config, defaults));
  LWQ_RETURN_IF_ERROR(ReadSharedRope(config, shape.rope_defaults(), shape));
  LWQ_ASSIGN_OR_RETURN(const int64_t window, ReadWindow(config, 4096));
  for (AttentionSpec& attention : shape.attention) attention.sliding_window = window;
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef mistral_family;
const ModelFamilyDef mistral_family = {
    .name = "mistral", .architectures = {"MistralForCausalLM"}, .parse = &ParseMistral};

}  // namespace lwq
