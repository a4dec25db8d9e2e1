// Gemma 2: every other layer has a window; attention scores and logits are capped softly.
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/gemma_config.h"

namespace lwq {
namespace {

absl::StatusOr<DecoderSpec> ParseGemma2(const ConfigReader& config) {
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadGemmaConfig(config, 8192));
  LWQ_RETURN_IF_ERROR(ReadSharedRope(config, shape.rope_defaults(), shape));
  LWQ_ASSIGN_OR_RETURN(const int64_t window, ReadWindow(config, 4096));
  // Some checkpoints say it twice.
  LWQ_RETURN_IF_ERROR(config.Int("sliding_window_size", window, window, window).status());
  LWQ_RETURN_IF_ERROR(SetWindows(
                          config, window, [](int layer) { return layer % 2 == 0; }, shape)
                          .status());
  LWQ_ASSIGN_OR_RETURN(shape.spec.attention_softcap,
                       ReadSoftCap(config, "attn_logit_softcapping", 50));
  LWQ_ASSIGN_OR_RETURN(shape.spec.logit_softcap,
                       ReadSoftCap(config, "final_logit_softcapping", 30));
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef gemma2_family;
const ModelFamilyDef gemma2_family = {
    .name = "gemma2", .architectures = {"Gemma2ForCausalLM"}, .parse = &ParseGemma2};

}  // namespace lwq
