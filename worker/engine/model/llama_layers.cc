// The layers of the Llama-shaped families: names as in Hugging Face's checkpoints, fused groups as
// inference engines fuse them.
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/engine/model/llama_config.h"

namespace lwq {
namespace {

// Makes one layer.
class LayerMaker {
 public:
  LayerMaker(const DecoderSpec& spec, const LlamaLayerOptions& options, int layer)
      : spec_(spec),
        options_(options),
        unit_prefix_(absl::StrCat("layers.", layer, ".")),
        prefix_(absl::StrCat("model.", unit_prefix_)) {}

  LayerSpec Make() {
    using enum LinearRole;
    const int64_t hidden = spec_.hidden_size, inner = spec_.intermediate_size;
    const int64_t queries = int64_t{spec_.num_heads} * spec_.head_dim;
    const int64_t keys = int64_t{spec_.num_kv_heads} * spec_.head_dim;
    layer_.attention = options_.attention;
    const size_t attention = AddInput("attention", hidden);
    const size_t attended = AddInput("attention_output", queries);
    const size_t mlp = AddInput("mlp", hidden);
    const size_t mlp_hidden = AddInput("mlp_hidden", inner);

    AddUnit("self_attn.qkv_proj");
    const size_t q = AddLinear(kQuery, "self_attn.q_proj", queries, attention);
    const size_t k = AddLinear(kKey, "self_attn.k_proj", keys, attention);
    const size_t v = AddLinear(kValue, "self_attn.v_proj", keys, attention);
    AddUnit("self_attn.o_proj");
    const size_t o = AddLinear(kOutput, "self_attn.o_proj", hidden, attended);
    AddUnit("mlp.gate_up_proj");
    const size_t gate = AddLinear(kGate, "mlp.gate_proj", inner, mlp);
    const size_t up = AddLinear(kUp, "mlp.up_proj", inner, mlp);
    AddUnit("mlp.down_proj");
    const size_t down = AddLinear(kDown, "mlp.down_proj", hidden, mlp_hidden);
    for (LinearSpec& linear : layer_.linears) linear.bias = HasBias(linear.role);

    const size_t before_attention = AddNorm(NormRole::kAttention, "input_layernorm", hidden);
    const size_t before_mlp = AddNorm(NormRole::kMlp, "post_attention_layernorm", hidden);
    if (options_.qk_norm) {
      AddNorm(NormRole::kQuery, "self_attn.q_norm", spec_.head_dim);
      AddNorm(NormRole::kKey, "self_attn.k_norm", spec_.head_dim);
    }

    using Source = ScaleEdge::Source;
    layer_.edges.push_back({Source::kNorm, before_attention, {q, k, v}, hidden});
    layer_.edges.push_back(
        {Source::kLinear, v, {o}, spec_.head_dim, spec_.num_heads / spec_.num_kv_heads});
    layer_.edges.push_back({Source::kNorm, before_mlp, {gate, up}, hidden});
    layer_.edges.push_back({Source::kLinear, up, {down}, inner});
    return std::move(layer_);
  }

 private:
  size_t AddInput(const char* name, int64_t features) {
    layer_.inputs.push_back({name, features});
    return layer_.inputs.size() - 1;
  }
  void AddUnit(const char* kind) { layer_.units.push_back({unit_prefix_ + kind, kind}); }
  // Of the unit added last.
  size_t AddLinear(LinearRole role, const char* name, int64_t out_features, size_t input) {
    LinearSpec& linear = layer_.linears.emplace_back();
    linear.shape = {prefix_ + name, out_features, layer_.inputs[input].features, name};
    linear.role = role;
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
        return options_.attention_bias;
      case LinearRole::kOutput:
        return options_.attention_output_bias;
      default:
        return options_.mlp_bias;
    }
  }

  const DecoderSpec& spec_;
  const LlamaLayerOptions& options_;
  const std::string unit_prefix_, prefix_;
  LayerSpec layer_;
};

HeadSpec MakeHead(const DecoderSpec& spec, bool tied) {
  HeadSpec head;
  head.tied = tied;
  LayerSpec& layer = head.layer;
  layer.inputs = {{"head", spec.hidden_size}};
  LinearSpec& linear = layer.linears.emplace_back();
  linear.shape = {"lm_head", spec.vocab_size, spec.hidden_size, "lm_head"};
  linear.role = LinearRole::kHead;
  layer.norms = {{"model.norm.weight", spec.hidden_size, NormRole::kFinal}};
  layer.units = {{"lm_head", "lm_head"}};
  layer.edges = {{ScaleEdge::Source::kNorm, 0, {0}, spec.hidden_size}};
  return head;
}

}  // namespace

DecoderSpec MakeLlamaShaped(LlamaShapedConfig config) {
  DecoderSpec spec = std::move(config.spec);
  spec.embedding.tensor = "model.embed_tokens.weight";
  for (int layer = 0; layer < config.num_layers; ++layer) {
    spec.layers.push_back(LayerMaker(spec, config.options, layer).Make());
  }
  spec.head = MakeHead(spec, config.tied_embeddings);
  return spec;
}

}  // namespace lwq
