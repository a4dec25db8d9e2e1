// What the families with a mixture of experts share in config.json.
#pragma once

#include "worker/engine/model/llama_config.h"

namespace lwq {

// The number of experts, under either of its names (transformers 5 renamed it), and how many of
// them a token takes. Refuses more than 65,536 in all layers.
absl::StatusOr<LlamaExperts> ReadExperts(const ConfigReader& config, int64_t num_experts,
                                         int64_t per_token, size_t num_layers);

// Qwen's: experts of a size of their own, in every decoder_sparse_step-th layer that
// mlp_only_layers does not name.
absl::Status ReadQwenExperts(const ConfigReader& config, int64_t num_experts, int64_t per_token,
                             int64_t intermediate_size, LlamaShapedConfig& shape);

}  // namespace lwq
