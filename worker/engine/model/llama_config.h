// What the Llama-shaped families share: the fields of config.json, and the layers.
#pragma once

#include "absl/status/statusor.h"
#include "worker/engine/model/config_reader.h"
#include "worker/engine/model/decoder_spec.h"

namespace lwq {

// What the layers of one family have and those of another do not.
struct LlamaLayerOptions {
  AttentionSpec attention;
  bool attention_bias = false;         // q, k, v (Qwen2) ...
  bool attention_output_bias = false;  // ... and o
  bool mlp_bias = false;
  bool qk_norm = false;  // Qwen3
};

// Sizes, norms and token ids, and of the options the rotary embedding (in the spellings of
// transformers 4 and 5). The layers are still to be made.
struct LlamaShapedConfig {
  DecoderSpec spec;
  int num_layers = 0;
  bool tied_embeddings = false;
  LlamaLayerOptions options;
};
absl::StatusOr<LlamaShapedConfig> ReadLlamaShapedConfig(const ConfigReader& config);

// The spec with embedding, layers and head in the layout and names of Hugging Face's Llama.
DecoderSpec MakeLlamaShaped(LlamaShapedConfig config);

}  // namespace lwq
