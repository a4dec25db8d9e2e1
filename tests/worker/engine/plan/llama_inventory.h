// Inventories of Llama-shaped models, from sizes alone.
#pragma once

#include <string>
#include <utility>
#include <vector>

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
  int64_t head_dim = 0;  // 0: hidden / heads
};

inline ModelInventory LlamaInventory(const LlamaShape& s) {
  using enum LinearRole;
  ModelInventory m;
  m.num_layers = s.layers;
  m.weight_dtype = DType::kBF16;
  m.hidden_size = s.hidden;
  m.intermediate_size = s.intermediate;
  m.vocab_size = s.vocab;
  m.num_heads = s.heads;
  m.num_kv_heads = s.kv_heads;
  m.head_dim = static_cast<int>(s.head_dim == 0 ? s.hidden / s.heads : s.head_dim);
  m.max_positions = 2048;
  const int64_t queries = int64_t{s.heads} * m.head_dim, kv = int64_t{s.kv_heads} * m.head_dim;
  m.dense.push_back(
      {{"model.embed_tokens.weight", DType::kBF16, {s.vocab, s.hidden}}, Place::Embedding(), ""});
  for (int l = 0; l < s.layers; ++l) {
    const std::string prefix = absl::StrCat("model.layers.", l, ".");
    const auto unit = [&](absl::string_view kind, std::vector<LinearShape> linears) {
      for (LinearShape& linear : linears) linear.module = prefix + linear.name;
      m.units.push_back({absl::StrCat("layers.", l, ".", kind), Place::Layer(l), std::move(linears),
                         std::string(kind)});
    };
    const auto norm = [&](absl::string_view name) {
      m.dense.push_back(
          {{absl::StrCat(prefix, name, ".weight"), DType::kBF16, {s.hidden}}, Place::Layer(l), ""});
    };
    unit("self_attn.qkv_proj", {{"", queries, s.hidden, "self_attn.q_proj", kQuery, "attention"},
                                {"", kv, s.hidden, "self_attn.k_proj", kKey, "attention"},
                                {"", kv, s.hidden, "self_attn.v_proj", kValue, "attention"}});
    unit("self_attn.o_proj",
         {{"", s.hidden, queries, "self_attn.o_proj", kOutput, "attention_output"}});
    unit("mlp.gate_up_proj", {{"", s.intermediate, s.hidden, "mlp.gate_proj", kGate, "mlp"},
                              {"", s.intermediate, s.hidden, "mlp.up_proj", kUp, "mlp"}});
    unit("mlp.down_proj", {{"", s.hidden, s.intermediate, "mlp.down_proj", kDown, "mlp_hidden"}});
    norm("input_layernorm");
    norm("post_attention_layernorm");
  }
  m.dense.push_back({{"model.norm.weight", DType::kBF16, {s.hidden}}, Place::FinalNorm(), ""});
  if (!s.tied) {
    m.units.push_back({"lm_head",
                       Place::Head(),
                       {{"lm_head", s.vocab, s.hidden, "lm_head", kHead, "head"}},
                       "lm_head"});
  }
  return m;
}

// Each linear as a unit of its own.
inline ModelInventory Unfused(ModelInventory model) {
  std::vector<AllocationUnit> units;
  for (const AllocationUnit& unit : model.units) {
    for (const LinearShape& linear : unit.linears) {
      units.push_back({linear.name, unit.place, {linear}, linear.name});
    }
  }
  model.units = std::move(units);
  return model;
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
