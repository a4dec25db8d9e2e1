// What the planner knows of a model: its units of allocation and the tensors no width reaches.
// Plain data; made by model/ from a checkpoint, or by the server from the stored manifest.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "worker/engine/plan/safetensors_layout.h"

namespace lwq {

struct ArtifactFormatDef;
const ArtifactFormatDef* DefaultArtifactFormat();  // compressed-tensors

// Which part of a model a tensor or a unit belongs to.
struct Place {
  enum class Part { kEmbedding, kLayer, kFinalNorm, kHead };
  Part part = Part::kLayer;
  int layer = 0;  // of Part::kLayer, else 0

  static constexpr Place Embedding() { return {Part::kEmbedding, 0}; }
  static constexpr Place Layer(int layer) { return {Part::kLayer, layer}; }
  static constexpr Place FinalNorm() { return {Part::kFinalNorm, 0}; }
  static constexpr Place Head() { return {Part::kHead, 0}; }
  bool in_layer() const { return part == Part::kLayer; }
  friend bool operator==(const Place&, const Place&) = default;
};

// What the decoder does with a linear. Some checkpoints hold queries, keys and values in one
// linear, rows in this order, and gate and up likewise.
enum class LinearRole {
  kUnknown,  // in the inventory of a model that an earlier version of lwq registered
  kQuery,
  kKey,
  kValue,
  kQueryKeyValue,
  kOutput,
  kGate,
  kUp,
  kGateUp,
  kDown,
  kHead,
  kEmbedding
};

// One linear, named by its module ("model.layers.3.self_attn.q_proj"); weight [out, in].
struct LinearShape {
  std::string module;
  int64_t out_features = 0;
  int64_t in_features = 0;
  // In its layer: "self_attn.q_proj"; of the head "lm_head". Those of a layer's experts share one,
  // "mlp.experts.up_proj", in which GGUF files stack them.
  std::string name;
  LinearRole role = LinearRole::kUnknown;
  // What it reads, by its name in the layer ("mlp_hidden"); linears of one input share its
  // statistics. Empty where that is not known.
  std::string input;
  // Of its weight in the source, where that is not the model's weight_dtype: an embedding may have
  // one of its own.
  std::optional<DType> own_dtype;

  int64_t num_weights() const { return out_features * in_features; }
};

// Linears that must share one format because inference engines fuse them: q+k+v, o, gate+up, down,
// all experts of a layer, or an untied lm_head. Where they fuse nothing (artifact_format.h): one
// linear, or the embedding.
struct AllocationUnit {
  std::string name;  // "layers.3.self_attn.qkv_proj"
  Place place;       // a layer, the head or the embedding
  std::vector<LinearShape> linears;
  // What engines call it in its layer, the same for all layers: "self_attn.qkv_proj", "lm_head".
  std::string kind;

  int64_t num_weights() const {
    int64_t n = 0;
    for (const LinearShape& l : linears) n += l.num_weights();
    return n;
  }
  // Whether its linears are those of a layer's experts, in their order, of which few are held at a
  // time: they share names.
  bool of_experts() const {
    for (size_t i = 1; i < linears.size(); ++i) {
      if (linears[i].name == linears.front().name) return true;
    }
    return false;
  }
};

// A tensor that no format reaches: an embedding, a norm, a bias.
struct DenseTensor : TensorSpec {
  Place place;
  std::string bias_of;  // the module of the linear that it is the bias of, if it is one
};

struct ModelInventory {
  int num_layers = 0;
  DType weight_dtype = DType::kF16;   // of the linears in the source
  std::vector<AllocationUnit> units;  // by layer, in the order qkv, o, gate_up, down; lm_head last
  std::vector<DenseTensor> dense;     // everything else, sorted by name
  // For memory and KV-cache forecasts.
  int64_t hidden_size = 0, intermediate_size = 0, vocab_size = 0;
  int num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t max_positions = 0;
  // What a GGUF file of the model holds besides the tensors of its units, in bytes: header with
  // metadata and tokenizer, norms, padding. 0 when none can be made; then `gguf_refusal` says why.
  int64_t gguf_other_bytes = 0;
  std::string gguf_refusal;
  // The kind of artifact that `units` are for.
  const ArtifactFormatDef* artifact_format = DefaultArtifactFormat();

  int64_t num_quantizable_weights() const {
    int64_t n = 0;
    for (const AllocationUnit& u : units) n += u.num_weights();
    return n;
  }
};

}  // namespace lwq
