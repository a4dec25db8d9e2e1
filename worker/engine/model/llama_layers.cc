// The layers of the Llama-shaped families: names as in the family's checkpoints, fused groups as
// inference engines fuse them.
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/engine/model/llama_config.h"

namespace lwq {
namespace {

// Makes one layer.
class LayerMaker {
 public:
  LayerMaker(const DecoderSpec& spec, const LlamaShapedConfig& config, int layer)
      : spec_(spec),
        options_(config.options),
        names_(config.names),
        unit_prefix_(absl::StrCat(names_.layers, ".", layer, ".")),
        prefix_(absl::StrCat(names_.model, ".", unit_prefix_)) {}

  // `experts`: null where the layer has an MLP.
  LayerSpec Make(const AttentionSpec& attention, const LlamaExperts* experts) {
    layer_.attention = attention;
    AddAttention();
    if (experts == nullptr) {
      AddMlp();
    } else {
      AddExperts(*experts);
    }
    for (LinearSpec& linear : layer_.linears) linear.bias = HasBias(linear.shape.role);
    AddInnerNorms();
    return std::move(layer_);
  }

 private:
  void AddAttention() {
    using enum LinearRole;
    const int64_t hidden = spec_.hidden_size;
    const int64_t queries = int64_t{spec_.num_heads} * spec_.head_dim;
    const int64_t keys = int64_t{spec_.num_kv_heads} * spec_.head_dim;
    const size_t input = AddInput("attention", hidden);
    const size_t attended = AddInput("attention_output", queries);
    const size_t norm = AddNorm(NormRole::kAttention, names_.attention_norm, hidden);
    std::vector<size_t> readers;
    AddUnit(names_.query_key_value);
    if (options_.fused_attention) {
      readers = {AddLinear(kQueryKeyValue, names_.query_key_value, queries + 2 * keys, input)};
    } else {
      readers = {AddLinear(kQuery, names_.query, queries, input),
                 AddLinear(kKey, names_.key, keys, input),
                 AddLinear(kValue, names_.value, keys, input)};
    }
    AddUnit(names_.output);
    const size_t o = AddLinear(kOutput, names_.output, hidden, attended);
    layer_.edges.push_back({ScaleEdge::Source::kNorm, norm, readers, hidden});
    if (options_.fused_attention) return;  // an edge's source is all rows of a linear
    layer_.edges.push_back({ScaleEdge::Source::kLinear,
                            readers.back(),
                            {o},
                            spec_.head_dim,
                            spec_.num_heads / spec_.num_kv_heads});
  }

  void AddMlp() {
    using enum LinearRole;
    const int64_t hidden = spec_.hidden_size, inner = spec_.intermediate_size;
    const size_t input = AddInput("mlp", hidden);
    const size_t mlp_hidden = AddInput("mlp_hidden", inner);
    const size_t norm = options_.sandwich_norms
                            ? AddNorm(NormRole::kMlp, "pre_feedforward_layernorm", hidden)
                            : AddNorm(NormRole::kMlp, names_.mlp_norm, hidden);
    std::vector<size_t> readers;
    AddUnit(names_.gate_up);
    if (options_.fused_mlp) {
      readers = {AddLinear(kGateUp, names_.gate_up, 2 * inner, input)};
    } else {
      readers = {AddLinear(kGate, names_.gate, inner, input),
                 AddLinear(kUp, names_.up, inner, input)};
    }
    AddUnit(names_.down);
    const size_t down = AddLinear(kDown, names_.down, hidden, mlp_hidden);
    layer_.edges.push_back({ScaleEdge::Source::kNorm, norm, readers, hidden});
    if (options_.fused_mlp) return;
    layer_.edges.push_back({ScaleEdge::Source::kLinear, readers.back(), {down}, inner});
  }

  // Besides the experts the router reads the norm, so no scale may move from there. What all tokens
  // make of that input is watched too: it stands in for an expert that few tokens reach.
  void AddExperts(const LlamaExperts& experts) {
    using enum LinearRole;
    const int64_t hidden = spec_.hidden_size;
    const std::string block = absl::StrCat(experts.block, ".");
    const size_t input = AddInput("mlp", hidden);
    AddNorm(NormRole::kMlp, names_.mlp_norm, hidden);
    const std::string shared = block + "shared_expert";
    ExpertsSpec& spec = layer_.experts.emplace();
    spec = {experts.num_experts,
            experts.per_token,
            input,
            experts.normalized,
            absl::StrCat(prefix_, block, "gate.weight"),
            ""};
    AddUnit(block + "experts");
    for (int e = 0; e < experts.num_experts; ++e) {
      const size_t routed = AddInput(absl::StrCat("experts.", e), hidden);
      const size_t inner = AddInput(absl::StrCat("experts_hidden.", e), experts.intermediate_size);
      layer_.inputs[routed].routed = layer_.inputs[inner].routed = true;
      layer_.inputs[routed].pooled = input;
      const auto add = [&](LinearRole role, const char* name, int64_t out_features, size_t reads) {
        const size_t at =
            AddLinear(role, absl::StrCat(block, "experts.", e, ".", name), out_features, reads);
        layer_.linears[at].expert = e;
        layer_.linears[at].shape.name = absl::StrCat(block, "experts.", name);
        return at;
      };
      add(kGate, experts.gate, experts.intermediate_size, routed);
      const size_t up = add(kUp, experts.up, experts.intermediate_size, routed);
      const size_t down = add(kDown, experts.down, hidden, inner);
      layer_.edges.push_back({ScaleEdge::Source::kLinear, up, {down}, experts.intermediate_size});
    }
    if (experts.shared_intermediate_size == 0) return;
    spec.shared_gate = absl::StrCat(prefix_, shared, "_gate.weight");
    const size_t inner = AddInput("mlp_hidden", experts.shared_intermediate_size);
    AddUnit(shared + ".gate_up_proj");
    AddLinear(kGate, shared + ".gate_proj", experts.shared_intermediate_size, input);
    const size_t up = AddLinear(kUp, shared + ".up_proj", experts.shared_intermediate_size, input);
    AddUnit(shared + ".down_proj");
    const size_t down = AddLinear(kDown, shared + ".down_proj", hidden, inner);
    layer_.edges.push_back(
        {ScaleEdge::Source::kLinear, up, {down}, experts.shared_intermediate_size});
  }

  // Norms of which no linear reads the output.
  void AddInnerNorms() {
    if (options_.sandwich_norms) {
      AddNorm(NormRole::kPostAttention, "post_attention_layernorm", spec_.hidden_size);
      AddNorm(NormRole::kPostMlp, "post_feedforward_layernorm", spec_.hidden_size);
    }
    if (options_.qk_norm) {
      AddNorm(NormRole::kQuery, "self_attn.q_norm", spec_.head_dim);
      AddNorm(NormRole::kKey, "self_attn.k_norm", spec_.head_dim);
    }
  }

  size_t AddInput(std::string name, int64_t features) {
    layer_.inputs.push_back({std::move(name), features});
    return layer_.inputs.size() - 1;
  }
  void AddUnit(const std::string& kind) { layer_.units.push_back({unit_prefix_ + kind, kind}); }
  // Of the unit added last.
  size_t AddLinear(LinearRole role, const std::string& name, int64_t out_features, size_t input) {
    LinearSpec& linear = layer_.linears.emplace_back();
    const InputSpec& reads = layer_.inputs[input];
    linear.shape = {prefix_ + name, out_features, reads.features, name, role, reads.name};
    linear.input = input;
    linear.unit = layer_.units.size() - 1;
    return layer_.linears.size() - 1;
  }
  size_t AddNorm(NormRole role, const char* name, int64_t size) {
    layer_.norms.push_back({absl::StrCat(prefix_, name, ".weight"), size, role});
    return layer_.norms.size() - 1;
  }
  bool HasBias(LinearRole role) const {
    switch (role) {
      case LinearRole::kQuery:
      case LinearRole::kKey:
      case LinearRole::kValue:
      case LinearRole::kQueryKeyValue:
        return options_.attention_bias;
      case LinearRole::kOutput:
        return options_.attention_output_bias;
      default:
        return options_.mlp_bias;
    }
  }

  const DecoderSpec& spec_;
  const LlamaLayerOptions& options_;
  const LlamaNames& names_;
  const std::string unit_prefix_, prefix_;
  LayerSpec layer_;
};

HeadSpec MakeHead(const DecoderSpec& spec, const LlamaShapedConfig& config) {
  HeadSpec head;
  head.tied = config.tied_embeddings;
  LayerSpec& layer = head.layer;
  layer.inputs = {{"head", spec.hidden_size}};
  LinearSpec& linear = layer.linears.emplace_back();
  linear.shape = {"lm_head", spec.vocab_size,   spec.hidden_size,
                  "lm_head", LinearRole::kHead, layer.inputs.front().name};
  layer.norms = {{absl::StrCat(config.names.model, ".", config.names.final_norm, ".weight"),
                  spec.hidden_size, NormRole::kFinal}};
  layer.units = {{"lm_head", "lm_head"}};
  layer.edges = {{ScaleEdge::Source::kNorm, 0, {0}, spec.hidden_size}};
  return head;
}

}  // namespace

DecoderSpec MakeLlamaShaped(LlamaShapedConfig config) {
  DecoderSpec spec = std::move(config.spec);
  spec.embedding.tensor = absl::StrCat(config.names.model, ".", config.names.embedding, ".weight");
  for (const AttentionSpec& attention : config.attention) {
    const bool sparse = config.experts.has_value() && config.experts->layers[spec.layers.size()];
    spec.layers.push_back(LayerMaker(spec, config, spec.num_layers())
                              .Make(attention, sparse ? &*config.experts : nullptr));
  }
  spec.head = MakeHead(spec, config);
  return spec;
}

}  // namespace lwq
