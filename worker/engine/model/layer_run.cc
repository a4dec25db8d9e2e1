#include "worker/engine/model/layer_run.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

absl::StatusOr<size_t> Need(std::optional<size_t> slot, absl::string_view what) {
  if (slot.has_value()) return *slot;
  return Failure(absl::StatusCode::kUnimplemented, reasons::kArchUnsupported.name,
                 absl::StrCat("the decoder does not do a layer without its ", what));
}

int64_t QueryCols(const LayerSpec& layer, const LayerSlots& slots) {
  return layer.linears[slots.output].shape.in_features;
}
int64_t KeyCols(const DecoderSpec& spec) { return int64_t{spec.num_kv_heads} * spec.head_dim; }
int64_t MlpCols(const LayerSpec& layer, const LayerSlots& slots) {
  return layer.linears[slots.down].shape.in_features;
}

// The heads of a contiguous matrix as rows of their own.
DeviceView<float> HeadsAsRows(DeviceView<float> m, int head_dim) {
  return {m.data, m.rows * (m.cols / head_dim), head_dim, head_dim};
}

absl::Status FindExperts(const LayerSpec& layer, LayerSlots& slots) {
  using enum LinearRole;
  for (int e = 0; e < layer.experts->num_experts; ++e) {
    LayerSlots::Expert& expert = slots.experts.emplace_back();
    LWQ_ASSIGN_OR_RETURN(expert.gate, Need(layer.FindExpert(e, kGate), "experts' gates"));
    LWQ_ASSIGN_OR_RETURN(expert.up, Need(layer.FindExpert(e, kUp), "experts' ups"));
    LWQ_ASSIGN_OR_RETURN(expert.down, Need(layer.FindExpert(e, kDown), "experts' downs"));
  }
  return absl::OkStatus();
}

absl::Status FindMlp(const LayerSpec& layer, LayerSlots& slots) {
  using enum LinearRole;
  if (layer.experts.has_value()) {
    LWQ_RETURN_IF_ERROR(FindExperts(layer, slots));
    slots.has_mlp = !layer.experts->shared_gate.empty();
    if (!slots.has_mlp) return absl::OkStatus();
  }
  if (const auto fused = layer.FindLinear(kGateUp); fused.has_value()) {
    slots.gate = slots.up = *fused;
  } else {
    LWQ_ASSIGN_OR_RETURN(slots.gate, Need(layer.FindLinear(kGate), "gate projection"));
    LWQ_ASSIGN_OR_RETURN(slots.up, Need(layer.FindLinear(kUp), "up projection"));
  }
  LWQ_ASSIGN_OR_RETURN(slots.down, Need(layer.FindLinear(kDown), "down projection"));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LayerSlots> FindSlots(const LayerSpec& layer) {
  using enum LinearRole;
  LayerSlots slots;
  if (const auto fused = layer.FindLinear(kQueryKeyValue); fused.has_value()) {
    slots.query = slots.key = slots.value = *fused;
  } else {
    LWQ_ASSIGN_OR_RETURN(slots.query, Need(layer.FindLinear(kQuery), "query projection"));
    LWQ_ASSIGN_OR_RETURN(slots.key, Need(layer.FindLinear(kKey), "key projection"));
    LWQ_ASSIGN_OR_RETURN(slots.value, Need(layer.FindLinear(kValue), "value projection"));
  }
  LWQ_ASSIGN_OR_RETURN(slots.output, Need(layer.FindLinear(kOutput), "output projection"));
  LWQ_RETURN_IF_ERROR(FindMlp(layer, slots));
  LWQ_ASSIGN_OR_RETURN(slots.attention_norm,
                       Need(layer.FindNorm(NormRole::kAttention), "attention norm"));
  LWQ_ASSIGN_OR_RETURN(slots.mlp_norm, Need(layer.FindNorm(NormRole::kMlp), "mlp norm"));
  slots.query_norm = layer.FindNorm(NormRole::kQuery);
  slots.key_norm = layer.FindNorm(NormRole::kKey);
  slots.post_attention_norm = layer.FindNorm(NormRole::kPostAttention);
  slots.post_mlp_norm = layer.FindNorm(NormRole::kPostMlp);
  if (slots.fused_attention() && slots.query_norm.has_value()) {
    return Failure(absl::StatusCode::kUnimplemented, reasons::kArchUnsupported.name,
                   "the decoder does not do norms of queries that are computed with keys");
  }
  return slots;
}

int64_t InnerWidth(const DecoderSpec& spec, const LayerSpec& layer, const LayerSlots& slots) {
  int64_t mlp = slots.has_mlp ? MlpCols(layer, slots) * (slots.fused_mlp() ? 2 : 1) : 0;
  if (slots.sparse()) {
    mlp = std::max(mlp, layer.linears[slots.experts.front().down].shape.in_features);
  }
  return std::max(2 * (QueryCols(layer, slots) + KeyCols(spec)), mlp);
}

LayerRun::LayerRun(const Decoder& decoder, const LayerWeights& weights, const LayerSlots& slots,
                   const LinearInputObserver& observer, DecoderWorkspace& workspace)
    : spec_(decoder.spec()),
      layer_(spec_.layers[static_cast<size_t>(weights.layer)]),
      device_(decoder.device()),
      weights_(weights),
      slots_(slots),
      observer_(observer),
      w_(workspace) {}

absl::Status LayerRun::Run(const PreparedBatch::Chunk& chunk, const RopeTable& rope) {
  LWQ_RETURN_IF_ERROR(RunAttention(chunk, rope));
  LWQ_ASSIGN_OR_RETURN(const DeviceView<float> normed, MlpInput(chunk.size));
  LWQ_RETURN_IF_ERROR(EnterLinear(slots_.up, normed));
  LWQ_ASSIGN_OR_RETURN(const DeviceView<float> inner, GateUp(normed));
  LWQ_RETURN_IF_ERROR(EnterLinear(slots_.down, inner));
  return AddOutput(inner, slots_.down, slots_.post_mlp_norm, w_.hidden->Rows(0, chunk.size));
}

absl::Status LayerRun::RunAttention(const PreparedBatch::Chunk& chunk, const RopeTable& rope) {
  const DeviceView<float> hidden = w_.hidden->Rows(0, chunk.size);
  const DeviceView<float> normed = w_.normed->Rows(0, chunk.size);
  LWQ_RETURN_IF_ERROR(Normalize(hidden, slots_.attention_norm, normed));
  LWQ_RETURN_IF_ERROR(EnterLinear(slots_.query, normed));
  LWQ_ASSIGN_OR_RETURN(const DeviceView<float> attended, Attend(chunk, rope, normed));
  LWQ_RETURN_IF_ERROR(EnterLinear(slots_.output, attended));
  return AddOutput(attended, slots_.output, slots_.post_attention_norm, hidden);
}

absl::StatusOr<DeviceView<float>> LayerRun::MlpInput(int64_t rows) {
  const DeviceView<float> normed = w_.normed->Rows(0, rows);
  LWQ_RETURN_IF_ERROR(Normalize(w_.hidden->Rows(0, rows), slots_.mlp_norm, normed));
  return normed;
}

absl::Status LayerRun::ObserveInput(size_t input, DeviceView<const float> x) const {
  return observer_.observe ? observer_.observe(input, x) : absl::OkStatus();
}

absl::Status LayerRun::EnterLinear(size_t linear, DeviceView<float> x) const {
  LWQ_RETURN_IF_ERROR(ObserveInput(layer_.linears[linear].input, x));
  return device_->RoundRows(weights_.rules[linear], x);
}

BiasedWeight LayerRun::Weight(size_t linear) const {
  const auto& bias = weights_.biases[linear];
  return {*weights_.linears[linear], bias == nullptr ? DeviceSpan<const float>() : bias->span()};
}

absl::Status LayerRun::Normalize(DeviceView<const float> x, size_t norm,
                                 DeviceView<float> out) const {
  return device_->RmsNorm(x, weights_.norms[norm]->span(), static_cast<float>(spec_.norm_epsilon),
                          out);
}

// Where queries, keys and values lie, and what attention answers. They share `inner` with what
// comes after them.
LayerRun::Projections LayerRun::CarveProjections(int64_t rows) const {
  const int64_t queries = QueryCols(layer_, slots_), keys = KeyCols(spec_);
  DeviceMatrix& inner = *w_.inner;
  if (slots_.fused_attention()) {
    const DeviceView<float> all = inner.Carve(0, rows, queries + 2 * keys);
    return {all.Cols(0, queries), all.Cols(queries, keys), all.Cols(queries + keys, keys),
            inner.Carve(rows * all.cols, rows, queries)};
  }
  return {inner.Carve(0, rows, queries), inner.Carve(rows * 2 * queries, rows, keys),
          inner.Carve(rows * (2 * queries + keys), rows, keys),
          inner.Carve(rows * queries, rows, queries)};
}

absl::Status LayerRun::Project(DeviceView<const float> normed, const Projections& to) const {
  if (slots_.fused_attention()) {
    const DeviceView<float>& q = to.query;
    const DeviceView<float> all = {q.data, q.rows, q.cols + to.key.cols + to.value.cols, q.stride};
    return device_->Linear(normed, Weight(slots_.query), all);
  }
  LWQ_RETURN_IF_ERROR(device_->Linear(normed, Weight(slots_.query), to.query));
  LWQ_RETURN_IF_ERROR(device_->Linear(normed, Weight(slots_.key), to.key));
  LWQ_RETURN_IF_ERROR(device_->Linear(normed, Weight(slots_.value), to.value));
  if (slots_.query_norm.has_value()) {
    const DeviceView<float> q = HeadsAsRows(to.query, spec_.head_dim);
    LWQ_RETURN_IF_ERROR(Normalize(q, *slots_.query_norm, q));
  }
  if (slots_.key_norm.has_value()) {
    const DeviceView<float> k = HeadsAsRows(to.key, spec_.head_dim);
    LWQ_RETURN_IF_ERROR(Normalize(k, *slots_.key_norm, k));
  }
  return absl::OkStatus();
}

absl::StatusOr<DeviceView<float>> LayerRun::Attend(const PreparedBatch::Chunk& chunk,
                                                   const RopeTable& rope,
                                                   DeviceView<const float> normed) {
  const Projections p = CarveProjections(chunk.size);
  LWQ_RETURN_IF_ERROR(Project(normed, p));
  LWQ_RETURN_IF_ERROR(device_->Rope(*chunk.on_device, rope, p.query));
  LWQ_RETURN_IF_ERROR(device_->Rope(*chunk.on_device, rope, p.key));
  AttentionShape shape;
  shape.num_heads = spec_.num_heads;
  shape.num_kv_heads = spec_.num_kv_heads;
  shape.head_dim = spec_.head_dim;
  shape.scale = static_cast<float>(spec_.attention_scale != 0
                                       ? spec_.attention_scale
                                       : 1 / std::sqrt(static_cast<double>(spec_.head_dim)));
  shape.sliding_window = static_cast<int>(layer_.attention.sliding_window);
  shape.logit_softcap = static_cast<float>(spec_.attention_softcap);
  if (chunk.attended == nullptr) {
    LWQ_RETURN_IF_ERROR(
        device_->Attention(p.query, p.key, p.value, *chunk.on_device, shape, p.attended));
    return p.attended;
  }
  LWQ_RETURN_IF_ERROR(device_->Copy(p.key, w_.keys->Rows(chunk.history, chunk.size)));
  LWQ_RETURN_IF_ERROR(device_->Copy(p.value, w_.values->Rows(chunk.history, chunk.size)));
  const int64_t so_far = chunk.history + chunk.size;
  LWQ_RETURN_IF_ERROR(device_->Attention(p.query, w_.keys->Rows(0, so_far),
                                         w_.values->Rows(0, so_far), *chunk.attended, shape,
                                         p.attended));
  return p.attended;
}

// What the down projection reads.
absl::StatusOr<DeviceView<float>> LayerRun::GateUp(DeviceView<const float> normed) {
  const int64_t cols = MlpCols(layer_, slots_);
  if (!slots_.fused_mlp()) {
    const DeviceView<float> inner = w_.inner->Carve(0, normed.rows, cols);
    LWQ_RETURN_IF_ERROR(device_->GatedLinear(normed, Weight(slots_.gate), Weight(slots_.up),
                                             spec_.activation, inner));
    return inner;
  }
  const DeviceView<float> both = w_.inner->Carve(0, normed.rows, 2 * cols);
  LWQ_RETURN_IF_ERROR(device_->Linear(normed, Weight(slots_.up), both));
  const DeviceView<float> gate = both.Cols(0, cols);
  LWQ_RETURN_IF_ERROR(device_->Gate(gate, both.Cols(cols, cols), spec_.activation, gate));
  return gate;
}

// hidden += the linear's output for x, through the norm where there is one.
absl::Status LayerRun::AddOutput(DeviceView<const float> x, size_t linear,
                                 std::optional<size_t> norm, DeviceView<float> hidden) {
  if (!norm.has_value()) return device_->AddLinear(x, Weight(linear), hidden);
  const DeviceView<float> output = w_.normed->Rows(0, hidden.rows);
  LWQ_RETURN_IF_ERROR(device_->Linear(x, Weight(linear), output));
  LWQ_RETURN_IF_ERROR(Normalize(output, *norm, output));
  return device_->Add(output, hidden);
}

}  // namespace lwq
