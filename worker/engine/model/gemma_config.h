// What Gemma 2 and the text part of Gemma 3 share: norms that multiply by 1 + weight and stand on
// both sides of attention and MLP, GELU, scaled embeddings, and layers with and without a window.
#pragma once

#include "worker/engine/model/llama_config.h"

namespace lwq {

// A value of the spec that may be switched off by null: 0 then, `by_default` where it is missing.
absl::StatusOr<double> ReadSoftCap(const ConfigReader& config, const char* field,
                                   double by_default);

// All but rotary embeddings, windows and soft caps.
absl::StatusOr<LlamaShapedConfig> ReadGemmaConfig(const ConfigReader& config,
                                                  int64_t default_max_positions);

}  // namespace lwq
