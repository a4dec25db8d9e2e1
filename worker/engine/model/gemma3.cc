// Gemma 3, text: norms of queries and keys; five of six layers have a window, and a rotary
// embedding of their own.
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/gemma_config.h"

namespace lwq {
namespace {

constexpr double kGlobalTheta = 1e6, kLocalTheta = 1e4;
constexpr double kMaxLocalTheta = 1e12;

// Rotary embeddings of layers with a window and of those without.
struct Ropes {
  RopeSpec sliding, full;
};

// transformers 5 has both in rope_parameters, 4 rope_theta and rope_scaling for the layers without
// a window and rope_local_base_freq for the others.
absl::StatusOr<Ropes> ReadRopes(const ConfigReader& config, const LlamaShapedConfig& shape) {
  RopeDefaults sliding = shape.rope_defaults(), full = sliding;
  sliding.theta = kLocalTheta;
  full.theta = kGlobalTheta;
  Ropes ropes;
  if (!config.Has("rope_parameters")) {
    LWQ_ASSIGN_OR_RETURN(ropes.full, ReadRope(config, full));
    LWQ_ASSIGN_OR_RETURN(ropes.sliding.theta,
                         config.Number("rope_local_base_freq", 1, kMaxLocalTheta, sliding.theta));
    return ropes;
  }
  LWQ_ASSIGN_OR_RETURN(full.theta, config.Number("rope_theta", 1, kMaxLocalTheta, full.theta));
  LWQ_ASSIGN_OR_RETURN(sliding.theta,
                       config.Number("rope_local_base_freq", 1, kMaxLocalTheta, sliding.theta));
  LWQ_ASSIGN_OR_RETURN(const ConfigReader parameters, config.Object("rope_parameters"));
  ropes.full.theta = full.theta;
  ropes.sliding.theta = sliding.theta;
  if (parameters.Has("full_attention")) {
    LWQ_ASSIGN_OR_RETURN(const ConfigReader inner, parameters.Object("full_attention"));
    LWQ_ASSIGN_OR_RETURN(ropes.full, ReadRopeParameters(inner, full));
  }
  if (parameters.Has("sliding_attention")) {
    LWQ_ASSIGN_OR_RETURN(const ConfigReader inner, parameters.Object("sliding_attention"));
    LWQ_ASSIGN_OR_RETURN(ropes.sliding, ReadRopeParameters(inner, sliding));
  }
  return ropes;
}

absl::StatusOr<DecoderSpec> ParseGemma3(const ConfigReader& config) {
  LWQ_ASSIGN_OR_RETURN(LlamaShapedConfig shape, ReadGemmaConfig(config, 131072));
  shape.options.qk_norm = true;
  LWQ_ASSIGN_OR_RETURN(const int64_t window, ReadWindow(config, 4096));
  LWQ_ASSIGN_OR_RETURN(const int64_t pattern,
                       config.Int("sliding_window_pattern", 1, INT32_MAX, 6));
  LWQ_ASSIGN_OR_RETURN(
      const std::vector<bool> sliding,
      SetWindows(
          config, window, [&](int layer) { return (layer + 1) % pattern != 0; }, shape));
  LWQ_ASSIGN_OR_RETURN(const Ropes ropes, ReadRopes(config, shape));
  for (size_t layer = 0; layer < sliding.size(); ++layer) {
    shape.attention[layer].rope = sliding[layer] ? ropes.sliding : ropes.full;
  }
  if (config.Has("attn_logit_softcapping")) return config.Refuse("attn_logit_softcapping", "null");
  LWQ_ASSIGN_OR_RETURN(shape.spec.logit_softcap, ReadSoftCap(config, "final_logit_softcapping", 0));
  return MakeLlamaShaped(std::move(shape));
}

}  // namespace

extern const ModelFamilyDef gemma3_family;
const ModelFamilyDef gemma3_family = {
    .name = "gemma3", .architectures = {"Gemma3ForCausalLM"}, .parse = &ParseGemma3};

}  // namespace lwq
