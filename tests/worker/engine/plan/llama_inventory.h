// Inventories of Llama-shaped models, from sizes alone.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/plan/allocator.h"

namespace lwq::testing {

struct LlamaShape {
  int layers = 12;
  int64_t hidden = 256;
  int64_t intermediate = 768;
  int heads = 4;
  int kv_heads = 2;
  int64_t vocab = 4096;
  bool tied = true;
};

inline ModelInventory LlamaInventory(const LlamaShape& s) {
  ModelInventory m;
  m.num_layers = s.layers;
  m.weight_dtype = DType::kBF16;
  m.hidden_size = s.hidden;
  m.intermediate_size = s.intermediate;
  m.vocab_size = s.vocab;
  m.num_heads = s.heads;
  m.num_kv_heads = s.kv_heads;
  m.head_dim = static_cast<int>(s.hidden / s.heads);
  m.max_positions = 2048;
  const int64_t kv = int64_t{s.kv_heads} * m.head_dim;
  m.dense.push_back({"model.embed_tokens.weight", DType::kBF16, {s.vocab, s.hidden}});
  for (int l = 0; l < s.layers; ++l) {
    const std::string module = absl::StrCat("model.layers.", l);
    const std::string name = absl::StrCat("layers.", l);
    m.units.push_back({absl::StrCat(name, ".self_attn.qkv_proj"),
                       l,
                       {{absl::StrCat(module, ".self_attn.q_proj"), s.hidden, s.hidden},
                        {absl::StrCat(module, ".self_attn.k_proj"), kv, s.hidden},
                        {absl::StrCat(module, ".self_attn.v_proj"), kv, s.hidden}}});
    m.units.push_back({absl::StrCat(name, ".self_attn.o_proj"),
                       l,
                       {{absl::StrCat(module, ".self_attn.o_proj"), s.hidden, s.hidden}}});
    m.units.push_back({absl::StrCat(name, ".mlp.gate_up_proj"),
                       l,
                       {{absl::StrCat(module, ".mlp.gate_proj"), s.intermediate, s.hidden},
                        {absl::StrCat(module, ".mlp.up_proj"), s.intermediate, s.hidden}}});
    m.units.push_back({absl::StrCat(name, ".mlp.down_proj"),
                       l,
                       {{absl::StrCat(module, ".mlp.down_proj"), s.hidden, s.intermediate}}});
    m.dense.push_back({absl::StrCat(module, ".input_layernorm.weight"), DType::kBF16, {s.hidden}});
    m.dense.push_back(
        {absl::StrCat(module, ".post_attention_layernorm.weight"), DType::kBF16, {s.hidden}});
  }
  m.dense.push_back({"model.norm.weight", DType::kBF16, {s.hidden}});
  if (!s.tied) m.units.push_back({"lm_head", -1, {{"lm_head", s.vocab, s.hidden}}});
  return m;
}

// A symmetric grid, or the source's own weights for 16 bits.
inline const WeightFormat* Width(int bits, int64_t group_size = 128) {
  if (bits == 16) return DenseFormat();
  return GridFormat::Find(bits, group_size, /*symmetric=*/true);
}

// The menu of these widths, the head's too.
inline Menu MenuFor(const ModelInventory& model, const std::vector<int>& bits,
                    int64_t group_size = 128) {
  MenuRequest request;
  for (int b : bits) request.formats.push_back(b == 16 ? "dense" : absl::StrCat("int", b));
  request.group_sizes = {group_size};
  request.quantize_head = true;
  return BuildMenu(model, **FindProfile("transformers"), request).value();
}

}  // namespace lwq::testing
