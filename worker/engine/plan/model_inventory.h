// What the planner knows of a model: its units of allocation and the tensors no width reaches.
// Plain data; made by model/ from a checkpoint, or by the server from the stored manifest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/engine/plan/safetensors_layout.h"

namespace lwq {

// One linear, named by its module ("model.layers.3.self_attn.q_proj"); weight [out, in].
struct LinearShape {
  std::string module;
  int64_t out_features = 0;
  int64_t in_features = 0;

  int64_t num_weights() const { return out_features * in_features; }
};

// Linears that must share one format because inference engines fuse them: q+k+v, o, gate+up, down,
// or an untied lm_head.
struct AllocationUnit {
  std::string name;  // "layers.3.self_attn.qkv_proj"
  int layer = 0;     // -1 for lm_head
  std::vector<LinearShape> linears;

  int64_t num_weights() const {
    int64_t n = 0;
    for (const LinearShape& l : linears) n += l.num_weights();
    return n;
  }
};

struct ModelInventory {
  int num_layers = 0;
  DType weight_dtype = DType::kF16;   // of the linears in the source
  std::vector<AllocationUnit> units;  // by layer, in the order qkv, o, gate_up, down; lm_head last
  std::vector<TensorSpec> dense;      // everything else, sorted by name
  // For memory and KV-cache forecasts.
  int64_t hidden_size = 0, intermediate_size = 0, vocab_size = 0;
  int num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t max_positions = 0;

  int64_t num_quantizable_weights() const {
    int64_t n = 0;
    for (const AllocationUnit& u : units) n += u.num_weights();
    return n;
  }
};

}  // namespace lwq
