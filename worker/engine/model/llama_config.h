// What the Llama-shaped families share: the fields of config.json, and the layers.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/model/config_reader.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/rope_config.h"

namespace lwq {

// What transformers takes for fields that config.json leaves out, where families differ.
struct LlamaDefaults {
  int64_t num_kv_heads = 0;  // 0: as many as heads
  int64_t head_dim = 0;      // 0: hidden_size / heads
  int64_t max_positions = 2048;
  double norm_epsilon = 1e-6;
  bool tied_embeddings = false;
  const char* activation_field = "hidden_act";
  Activation activation = Activation::kSilu;
};

// Modules in checkpoints: those of Hugging Face's Llama, and what other families call them.
struct LlamaNames {
  const char* model = "model";  // before all but the head
  const char* layers = "layers";
  const char* embedding = "embed_tokens";
  const char* final_norm = "norm";
  const char* attention_norm = "input_layernorm";
  const char* mlp_norm = "post_attention_layernorm";
  // Those that engines fuse, and where the family does not, the parts.
  const char* query_key_value = "self_attn.qkv_proj";
  const char* query = "self_attn.q_proj";
  const char* key = "self_attn.k_proj";
  const char* value = "self_attn.v_proj";
  const char* output = "self_attn.o_proj";
  const char* gate_up = "mlp.gate_up_proj";
  const char* gate = "mlp.gate_proj";
  const char* up = "mlp.up_proj";
  const char* down = "mlp.down_proj";
};

// What the layers of one family have and those of another do not.
struct LlamaLayerOptions {
  bool attention_bias = false;         // q, k, v (Qwen2) ...
  bool attention_output_bias = false;  // ... and o
  bool mlp_bias = false;
  bool qk_norm = false;          // Qwen3, Gemma 3
  bool fused_attention = false;  // Phi-3, Qwen: q, k and v in one linear
  bool fused_mlp = false;        // Phi-3: gate and up in one
  bool sandwich_norms = false;   // Gemma 2 and 3: norms also behind attention and MLP
};

// A mixture of experts in place of the MLP of some layers.
struct LlamaExperts {
  int num_experts = 0;
  int per_token = 0;
  bool normalized = true;
  int64_t intermediate_size = 0;         // of each expert
  int64_t shared_intermediate_size = 0;  // 0: no shared expert
  std::vector<bool> layers;              // which have it
  // Names in checkpoints: "mlp.gate", "mlp.experts.3.up_proj".
  const char* block = "mlp";
  const char* gate = "gate_proj";
  const char* up = "up_proj";
  const char* down = "down_proj";
};

// Sizes, norms and token ids. Rotary embeddings, windows and options are still to be set, and the
// layers to be made.
struct LlamaShapedConfig {
  DecoderSpec spec;
  bool tied_embeddings = false;
  LlamaLayerOptions options;
  LlamaNames names;
  std::vector<AttentionSpec> attention;  // of each layer
  std::optional<LlamaExperts> experts;

  RopeDefaults rope_defaults() const;
};
absl::StatusOr<LlamaShapedConfig> ReadLlamaShapedConfig(const ConfigReader& config,
                                                        const LlamaDefaults& defaults = {});

// One rotary embedding for all layers, as ReadRope reads it.
absl::Status ReadSharedRope(const ConfigReader& config, const RopeDefaults& defaults,
                            LlamaShapedConfig& shape);

// "sliding_window": 0 where it is null, `by_default` where it is missing.
absl::StatusOr<int64_t> ReadWindow(const ConfigReader& config, int64_t by_default);
// Gives `window` to the layers that "layer_types" calls sliding; without it, to those for which
// `by_default` says so. Returns which they are.
absl::StatusOr<std::vector<bool>> SetWindows(const ConfigReader& config, int64_t window,
                                             const std::function<bool(int layer)>& by_default,
                                             LlamaShapedConfig& shape);

// The spec with embedding, layers and head in the layout of Hugging Face's Llama.
DecoderSpec MakeLlamaShaped(LlamaShapedConfig config);

}  // namespace lwq
