// What Qwen2 and Qwen3 share beyond Llama's shape.
#pragma once

#include "worker/engine/model/llama_config.h"

namespace lwq {

// Rotary embedding, and the windows: none unless use_sliding_window, then from layer
// max_window_layers on.
absl::Status ReadQwenAttention(const ConfigReader& config, LlamaShapedConfig& shape);

}  // namespace lwq
