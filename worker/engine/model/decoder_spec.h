// A decoder-only transformer as data. A family (model/families.def) fills it in from config.json; one
// decoder runs them all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

enum class LinearRole { kQuery, kKey, kValue, kOutput, kGate, kUp, kDown };
inline constexpr int kNumLinearRoles = 7;
// Linears that read the same input share its statistics.
enum class LinearInput { kAttention, kAttentionOutput, kMlp, kMlpHidden };
inline constexpr int kNumLinearInputs = 4;
constexpr LinearInput InputOf(LinearRole role) {
  switch (role) {
    case LinearRole::kQuery: case LinearRole::kKey: case LinearRole::kValue:
      return LinearInput::kAttention;
    case LinearRole::kOutput: return LinearInput::kAttentionOutput;
    case LinearRole::kGate: case LinearRole::kUp: return LinearInput::kMlp;
    case LinearRole::kDown: return LinearInput::kMlpHidden;
  }
  return LinearInput::kAttention;
}

struct RopeSpec {
  double theta = 10000;
  std::string type = "default";  // default | linear | llama3
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  int64_t original_max_positions = 0;
};

// Sizes and switches. Everything a later family needs has its field here; a decoder that cannot do
// something yet refuses the spec (UNIMPLEMENTED, naming the field), it never ignores it.
struct DecoderSpec {
  std::string family;        // "llama"
  std::string architecture;  // "LlamaForCausalLM"
  int num_layers = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_positions = 0;
  double norm_epsilon = 1e-5;
  double norm_offset = 0;     // Gemma: weight + 1
  bool qk_norm = false;       // Qwen3
  bool attention_bias = false;         // q, k, v (Qwen2) ...
  bool attention_output_bias = false;  // ... and o
  bool mlp_bias = false;
  std::string activation = "silu";
  RopeSpec rope;
  double attention_scale = 0;  // 0: 1/sqrt(head_dim)
  int64_t sliding_window = 0;
  double attention_softcap = 0;
  double logit_softcap = 0;
  double embedding_scale = 1;
  bool tied_embeddings = false;
  int64_t bos_token_id = -1;  // -1: none
  int64_t eos_token_id = -1;

  // Tensor names of the Hugging Face layout.
  std::string embedding_name() const { return "model.embed_tokens.weight"; }
  std::string final_norm_name() const { return "model.norm.weight"; }
  std::string head_module() const { return "lm_head"; }
  std::string LayerPrefix(int layer) const;                     // "model.layers.3."
  std::string ModuleName(int layer, LinearRole role) const;     // "model.layers.3.mlp.up_proj"
  int64_t OutFeatures(LinearRole role) const;
  int64_t InFeatures(LinearRole role) const;
};

// Reads and checks config.json. Errors: NOT_FOUND, INVALID_ARGUMENT "CONFIG_INVALID" naming the field
// and both what was found and what is accepted, INVALID_ARGUMENT "ARCH_UNSUPPORTED" listing the
// families. Limits: 4 MiB, depth 32, 4,096 layers, hidden 131,072, vocabulary 4 M.
absl::StatusOr<DecoderSpec> ReadDecoderSpec(const std::string& model_directory);

// Checks that every tensor of the spec is in the checkpoint with the right shape and a float dtype
// ("TENSOR_MISSING", "CONFIG_MISMATCH" with both values) and describes the model for the planner.
absl::StatusOr<ModelInventory> TakeInventory(const DecoderSpec& spec, const Checkpoint& checkpoint);

struct ModelFamilyDef {
  absl::string_view name;
  std::vector<absl::string_view> architectures;
  // `config` is the parsed config.json, as text; see families for the fields each reads.
  absl::StatusOr<DecoderSpec> (*parse)(absl::string_view config_json);
};

}  // namespace lwq
