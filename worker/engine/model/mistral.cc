// Mistral: Llama's shape without biases, with an optional sliding window.
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/llama_config.h"

namespace lwq {
namespace {

constexpr int64_t kMaxWindow = (int64_t{1} << 31) - 1;

absl::StatusOr<DecoderSpec> ParseMistral(absl::string_view config_json) {
  LWQ_ASSIGN_OR_RETURN(const ConfigReader config, ConfigReader::Parse(config_json));
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadLlamaShapedConfig(config));
  LlamaLayerOptions& options = shape.options;
  LWQ_ASSIGN_OR_RETURN(options.attention.sliding_window,
                       config.Int("sliding_window", 1, kMaxWindow, 0));
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef mistral_family;
const ModelFamilyDef mistral_family = {
    .name = "mistral", .architectures = {"MistralForCausalLM"}, .parse = &ParseMistral};

}  // namespace lwq
