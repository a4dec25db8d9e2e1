// A decoder-only transformer as data. A family (model/families.def) fills it in from config.json;
// one decoder runs them all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/device/device.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/config_reader.h"
#include "worker/engine/model/layer_spec.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

// Everything a later family needs has its field here; a decoder that cannot do something yet
// refuses the spec (UNIMPLEMENTED, naming the field), it never ignores it.
struct DecoderSpec {
  std::string family;        // "llama"
  std::string architecture;  // "LlamaForCausalLM"
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_positions = 0;
  double norm_epsilon = 1e-5;
  double norm_offset = 0;  // Gemma: weight + 1
  Activation activation = Activation::kSilu;
  double attention_scale = 0;  // 0: 1/sqrt(head_dim)
  double attention_softcap = 0;
  double logit_softcap = 0;
  int64_t bos_token_id = -1;  // -1: none
  int64_t eos_token_id = -1;

  EmbeddingSpec embedding;
  std::vector<LayerSpec> layers;
  HeadSpec head;

  // The layer, the head or the embedding at `place`.
  const LayerSpec& at(Place place) const {
    if (place == Place::Embedding()) return embedding.layer;
    return place.in_layer() ? layers[static_cast<size_t>(place.layer)] : head.layer;
  }
  // Whether the weights at `place` are only looked up, row by row, and never multiplied.
  bool OnlyLookedUp(Place place) const { return place == Place::Embedding() && !head.tied; }
  int num_layers() const { return static_cast<int>(layers.size()); }
};

// Reads and checks config.json. Errors: NOT_FOUND, INVALID_ARGUMENT "CONFIG_INVALID" naming the
// field and both what was found and what is accepted, INVALID_ARGUMENT "ARCH_UNSUPPORTED" listing
// the families, or the fields that the family does not have. Limits: 4 MiB, depth 32, 4,096 layers,
// hidden 131,072, vocabulary 4 M.
absl::StatusOr<DecoderSpec> ReadDecoderSpec(const std::string& model_directory);
// The same from the file's content.
absl::StatusOr<DecoderSpec> ParseDecoderSpec(absl::string_view config_json);

// Checks that every tensor of the spec is in the checkpoint with the right shape and a float dtype
// ("TENSOR_MISSING", "CONFIG_MISMATCH" with both values) and describes the model for the planner.
absl::StatusOr<ModelInventory> TakeInventory(const DecoderSpec& spec, const Checkpoint& checkpoint);

struct ModelFamilyDef {
  absl::string_view name;
  std::vector<absl::string_view> architectures;
  // Asks `config` for every field that the family has; the others are then refused, if they may
  // change what the model computes.
  absl::StatusOr<DecoderSpec> (*parse)(const ConfigReader& config);
};

// What config.json says, read as this family. Errors: those of ReadDecoderSpec.
absl::StatusOr<DecoderSpec> ParseConfig(const ModelFamilyDef& family,
                                        absl::string_view config_json);

}  // namespace lwq
