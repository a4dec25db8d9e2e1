#include "worker/engine/model/decoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/model/token_chunks.h"

namespace lwq {
namespace {

absl::Status CannotDo(absl::string_view field, absl::string_view found) {
  return Failure(absl::StatusCode::kUnimplemented, "ARCH_UNSUPPORTED",
                 absl::StrCat("the decoder does not do ", field, " ", found));
}

absl::Status CheckSizes(const DecoderSpec& spec) {
  if (spec.num_layers() <= 0 || spec.hidden_size <= 0 || spec.vocab_size <= 0 ||
      spec.head_dim <= 0 || spec.head_dim % 2 != 0 || spec.num_kv_heads <= 0 ||
      spec.num_heads % spec.num_kv_heads != 0) {
    return absl::InvalidArgumentError("the decoder's sizes are not positive and consistent");
  }
  return absl::OkStatus();
}

absl::Status CheckSpec(const DecoderSpec& spec) {
  if (spec.activation != "silu") return CannotDo("activation", spec.activation);
  if (spec.logit_softcap != 0) {
    return CannotDo("logit_softcap", absl::StrCat(spec.logit_softcap));
  }
  for (const LayerSpec& layer : spec.layers) {
    const std::string& rope = layer.attention.rope.type;
    if (rope != "default" && rope != "linear" && rope != "llama3") return CannotDo("rope", rope);
    for (const LinearSpec& linear : layer.linears) {
      if (linear.expert.has_value()) return CannotDo("the expert", linear.shape.module);
    }
  }
  return CheckSizes(spec);
}

absl::StatusOr<LayerSlots> FindSlots(const LayerSpec& layer) {
  const auto linear = [&layer](LinearRole role, absl::string_view what) -> absl::StatusOr<size_t> {
    const std::optional<size_t> slot = layer.FindLinear(role);
    if (!slot.has_value()) return CannotDo("a layer without its", what);
    return *slot;
  };
  const auto norm = [&layer](NormRole role, absl::string_view what) -> absl::StatusOr<size_t> {
    const std::optional<size_t> slot = layer.FindNorm(role);
    if (!slot.has_value()) return CannotDo("a layer without its", what);
    return *slot;
  };
  LayerSlots slots;
  LWQ_ASSIGN_OR_RETURN(slots.query, linear(LinearRole::kQuery, "query projection"));
  LWQ_ASSIGN_OR_RETURN(slots.key, linear(LinearRole::kKey, "key projection"));
  LWQ_ASSIGN_OR_RETURN(slots.value, linear(LinearRole::kValue, "value projection"));
  LWQ_ASSIGN_OR_RETURN(slots.output, linear(LinearRole::kOutput, "output projection"));
  LWQ_ASSIGN_OR_RETURN(slots.gate, linear(LinearRole::kGate, "gate projection"));
  LWQ_ASSIGN_OR_RETURN(slots.up, linear(LinearRole::kUp, "up projection"));
  LWQ_ASSIGN_OR_RETURN(slots.down, linear(LinearRole::kDown, "down projection"));
  LWQ_ASSIGN_OR_RETURN(slots.attention_norm, norm(NormRole::kAttention, "attention norm"));
  LWQ_ASSIGN_OR_RETURN(slots.mlp_norm, norm(NormRole::kMlp, "mlp norm"));
  slots.query_norm = layer.FindNorm(NormRole::kQuery);
  slots.key_norm = layer.FindNorm(NormRole::kKey);
  return slots;
}

// In F32 throughout, as the models were trained.
std::vector<float> InverseFrequencies(const RopeSpec& rope, int head_dim) {
  constexpr float kPi = 3.14159265358979f;
  std::vector<float> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    frequencies[i] = 1.0f / std::pow(static_cast<float>(rope.theta), exponent);
    if (rope.type == "default") continue;
    const float scaled = frequencies[i] / static_cast<float>(rope.factor);
    if (rope.type == "linear") {
      frequencies[i] = scaled;
      continue;
    }
    // llama3: long waves are stretched, short ones left alone, those between blended.
    const float positions = static_cast<float>(rope.original_max_positions);
    const float low = static_cast<float>(rope.low_freq_factor);
    const float high = static_cast<float>(rope.high_freq_factor);
    const float wavelength = 2 * kPi / frequencies[i];
    if (wavelength > positions / low) {
      frequencies[i] = scaled;
    } else if (wavelength >= positions / high) {
      const float blend = (positions / wavelength - low) / (high - low);
      frequencies[i] = (1 - blend) * scaled + blend * frequencies[i];
    }
  }
  return frequencies;
}

// The heads of a contiguous matrix as rows of their own.
DeviceView<float> HeadsAsRows(DeviceView<float> m, int head_dim) {
  return {m.data, m.rows * (m.cols / head_dim), head_dim, head_dim};
}

// One layer over one chunk that is in the workspace's `hidden`.
class LayerRun {
 public:
  LayerRun(const Decoder& decoder, const LayerWeights& weights, const LayerSlots& slots,
           const RopeTable& rope, const LinearInputObserver& observer, DecoderWorkspace& workspace)
      : spec_(decoder.spec()),
        layer_(spec_.layers[static_cast<size_t>(weights.layer)]),
        device_(decoder.device()),
        weights_(weights),
        slots_(slots),
        rope_(rope),
        observer_(observer),
        w_(workspace) {}

  absl::Status Run(const PreparedBatch::Chunk& chunk) {
    const DeviceView<float> hidden = w_.hidden->Rows(0, chunk.size);
    const DeviceView<float> normed = w_.normed->Rows(0, chunk.size);
    const float epsilon = static_cast<float>(spec_.norm_epsilon);
    LWQ_RETURN_IF_ERROR(device_->RmsNorm(hidden, Norm(slots_.attention_norm), epsilon, normed));
    LWQ_RETURN_IF_ERROR(ObserveInputOf(slots_.query, normed));
    LWQ_ASSIGN_OR_RETURN(const DeviceView<float> attended, Attend(chunk, normed, epsilon));
    LWQ_RETURN_IF_ERROR(ObserveInputOf(slots_.output, attended));
    LWQ_RETURN_IF_ERROR(device_->AddLinear(attended, Weight(slots_.output), hidden));

    LWQ_RETURN_IF_ERROR(device_->RmsNorm(hidden, Norm(slots_.mlp_norm), epsilon, normed));
    LWQ_RETURN_IF_ERROR(ObserveInputOf(slots_.up, normed));
    const DeviceView<float> inner = w_.inner->Carve(0, chunk.size, OutFeatures(slots_.up));
    LWQ_RETURN_IF_ERROR(
        device_->GatedLinear(normed, Weight(slots_.gate), Weight(slots_.up), inner));
    LWQ_RETURN_IF_ERROR(ObserveInputOf(slots_.down, inner));
    return device_->AddLinear(inner, Weight(slots_.down), hidden);
  }

 private:
  absl::Status ObserveInputOf(size_t linear, DeviceView<const float> x) const {
    return observer_ ? observer_(layer_.linears[linear].input, x) : absl::OkStatus();
  }

  BiasedWeight Weight(size_t linear) const {
    const auto& bias = weights_.biases[linear];
    return {*weights_.linears[linear], bias == nullptr ? DeviceSpan<const float>() : bias->span()};
  }
  DeviceSpan<const float> Norm(size_t norm) const { return weights_.norms[norm]->span(); }
  int64_t OutFeatures(size_t linear) const { return layer_.linears[linear].shape.out_features; }

  // Queries, keys, values and the answer share `inner` with what comes after them.
  absl::StatusOr<DeviceView<float>> Attend(const PreparedBatch::Chunk& chunk,
                                           DeviceView<const float> normed, float epsilon) {
    const int64_t rows = chunk.size;
    const int64_t query_cols = OutFeatures(slots_.query);
    const int64_t key_cols = OutFeatures(slots_.key);
    DeviceMatrix& inner = *w_.inner;
    const DeviceView<float> query = inner.Carve(0, rows, query_cols);
    const DeviceView<float> attended = inner.Carve(rows * query_cols, rows, query_cols);
    const DeviceView<float> key = inner.Carve(rows * 2 * query_cols, rows, key_cols);
    const DeviceView<float> value = inner.Carve(rows * (2 * query_cols + key_cols), rows, key_cols);
    LWQ_RETURN_IF_ERROR(device_->Linear(normed, Weight(slots_.query), query));
    LWQ_RETURN_IF_ERROR(device_->Linear(normed, Weight(slots_.key), key));
    LWQ_RETURN_IF_ERROR(device_->Linear(normed, Weight(slots_.value), value));
    if (slots_.query_norm.has_value()) {
      const DeviceView<float> q = HeadsAsRows(query, spec_.head_dim);
      LWQ_RETURN_IF_ERROR(device_->RmsNorm(q, Norm(*slots_.query_norm), epsilon, q));
    }
    if (slots_.key_norm.has_value()) {
      const DeviceView<float> k = HeadsAsRows(key, spec_.head_dim);
      LWQ_RETURN_IF_ERROR(device_->RmsNorm(k, Norm(*slots_.key_norm), epsilon, k));
    }
    LWQ_RETURN_IF_ERROR(device_->Rope(*chunk.on_device, rope_, query));
    LWQ_RETURN_IF_ERROR(device_->Rope(*chunk.on_device, rope_, key));
    AttentionShape shape;
    shape.num_heads = spec_.num_heads;
    shape.num_kv_heads = spec_.num_kv_heads;
    shape.head_dim = spec_.head_dim;
    shape.scale = static_cast<float>(spec_.attention_scale != 0
                                         ? spec_.attention_scale
                                         : 1 / std::sqrt(static_cast<double>(spec_.head_dim)));
    shape.sliding_window = static_cast<int>(layer_.attention.sliding_window);
    shape.logit_softcap = static_cast<float>(spec_.attention_softcap);
    LWQ_RETURN_IF_ERROR(device_->Attention(query, key, value, *chunk.on_device, shape, attended));
    return attended;
  }

  const DecoderSpec& spec_;
  const LayerSpec& layer_;
  Device* const device_;
  const LayerWeights& weights_;
  const LayerSlots& slots_;
  const RopeTable& rope_;
  const LinearInputObserver& observer_;
  DecoderWorkspace& w_;
};

}  // namespace

int TokenBatch::Add(absl::Span<const int32_t> sequence, int parent) {
  Segment segment;
  segment.begin = num_tokens();
  segment.size = static_cast<int64_t>(sequence.size());
  segment.parent = parent;
  if (parent >= 0) {
    const Segment& before = segments[static_cast<size_t>(parent)];
    segment.first_position = before.first_position + static_cast<int32_t>(before.size);
  }
  tokens.insert(tokens.end(), sequence.begin(), sequence.end());
  segments.push_back(segment);
  return static_cast<int>(segments.size()) - 1;
}

Decoder::Decoder(DecoderSpec spec, std::vector<LayerSlots> slots, const WeightSource* weights,
                 Device* device, ComputeType compute)
    : spec_(std::move(spec)),
      slots_(std::move(slots)),
      weights_(weights),
      device_(device),
      compute_(compute) {
  std::vector<RopeSpec> ropes;
  for (const LayerSpec& layer : spec_.layers) {
    const RopeSpec& rope = layer.attention.rope;
    const auto at = std::find(ropes.begin(), ropes.end(), rope);
    rope_of_layer_.push_back(static_cast<size_t>(at - ropes.begin()));
    if (at != ropes.end()) continue;
    ropes.push_back(rope);
    inverse_frequencies_.push_back(InverseFrequencies(rope, spec_.head_dim));
  }
  rope_tables_.resize(ropes.size());
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(DecoderSpec spec,
                                                         const WeightSource* weights,
                                                         Device* device, ComputeType compute) {
  LWQ_RETURN_IF_ERROR(CheckSpec(spec));
  if (!device->Supports(compute)) {
    return CannotDo("compute type", absl::StrCat(NameOf(compute), " on device ", device->name()));
  }
  std::vector<LayerSlots> slots;
  for (const LayerSpec& layer : spec.layers) {
    LWQ_ASSIGN_OR_RETURN(slots.emplace_back(), FindSlots(layer));
  }
  return std::unique_ptr<Decoder>(
      new Decoder(std::move(spec), std::move(slots), weights, device, compute));
}

absl::Status Decoder::Embed(absl::Span<const int32_t> tokens, MatrixView hidden) const {
  if (hidden.rows != static_cast<int64_t>(tokens.size()) || hidden.cols != spec_.hidden_size) {
    return absl::InvalidArgumentError(absl::StrCat("hidden states are [", hidden.rows, ", ",
                                                   hidden.cols, "], expected [", tokens.size(),
                                                   ", ", spec_.hidden_size, "]"));
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= spec_.vocab_size) {
      return InvalidFailure(
          "TOKEN_OUT_OF_RANGE",
          absl::StrCat("token ", i, " is ", tokens[i], ", the vocabulary has ", spec_.vocab_size));
    }
    const MatrixView row = hidden.Rows(static_cast<int64_t>(i), 1);
    LWQ_RETURN_IF_ERROR(weights_->ReadDense(spec_.embedding.tensor, tokens[i], row));
    if (spec_.embedding.scale == 1) continue;
    for (int64_t c = 0; c < row.cols; ++c) {
      row.data[c] *= static_cast<float>(spec_.embedding.scale);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<DeviceMatrix>> Decoder::LoadVector(const std::string& tensor,
                                                                  int64_t size,
                                                                  double offset) const {
  Matrix host(1, size);
  LWQ_RETURN_IF_ERROR(weights_->ReadDense(tensor, 0, host.view()));
  for (int64_t c = 0; c < size; ++c) host.data()[c] += static_cast<float>(offset);
  LWQ_ASSIGN_OR_RETURN(std::shared_ptr<DeviceMatrix> vector, device_->NewMatrix(1, size));
  LWQ_RETURN_IF_ERROR(device_->Upload(host.view(), vector->view()));
  return vector;
}

absl::StatusOr<std::shared_ptr<const PreparedWeight>> Decoder::Prepare(
    int64_t out_features, int64_t in_features, const FillWeight& fill) const {
  LWQ_ASSIGN_OR_RETURN(auto weight, device_->NewMatrix(out_features, in_features));
  LWQ_RETURN_IF_ERROR(fill(weight->view()));
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<PreparedWeight> prepared,
                       device_->PrepareWeight(weight->view(), compute_));
  return std::shared_ptr<const PreparedWeight>(std::move(prepared));
}

absl::StatusOr<std::shared_ptr<DeviceMatrix>> Decoder::LoadNorm(const NormSpec& norm) const {
  return LoadVector(norm.tensor, norm.size, spec_.norm_offset);
}

absl::StatusOr<LayerWeights> Decoder::LoadLayer(int layer) const {
  if (layer < 0 || layer >= spec_.num_layers()) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer, " of a model of ", spec_.num_layers()));
  }
  const LayerSpec& spec = spec_.layers[static_cast<size_t>(layer)];
  LayerWeights weights;
  weights.layer = layer;
  for (const LinearSpec& linear : spec.linears) {
    const LinearShape& shape = linear.shape;
    const auto load = [&](DeviceView<float> weight) {
      return weights_->LoadLinear(shape.module, device_, weight);
    };
    LWQ_ASSIGN_OR_ANNOTATE(weights.linears.emplace_back(),
                           Prepare(shape.out_features, shape.in_features, load), shape.module);
    std::shared_ptr<DeviceMatrix>& bias = weights.biases.emplace_back();
    if (!linear.bias) continue;
    LWQ_ASSIGN_OR_RETURN(bias, LoadVector(linear.bias_name(), shape.out_features, 0));
  }
  for (const NormSpec& norm : spec.norms) {
    LWQ_ASSIGN_OR_RETURN(weights.norms.emplace_back(), LoadNorm(norm));
  }
  return weights;
}

absl::Status Decoder::ReserveWorkspace(int64_t rows) const {
  if (workspace_.rows >= rows) return absl::OkStatus();
  workspace_ = DecoderWorkspace{};
  int64_t widest = 0;
  for (size_t l = 0; l < slots_.size(); ++l) {
    const auto width = [&](size_t slot) {
      return spec_.layers[l].linears[slot].shape.out_features;
    };
    const LayerSlots& slots = slots_[l];
    widest = std::max({widest, 2 * (width(slots.query) + width(slots.key)), width(slots.up)});
  }
  const int64_t inner = rows * widest;
  LWQ_ASSIGN_OR_RETURN(workspace_.hidden, device_->NewMatrix(rows, spec_.hidden_size));
  LWQ_ASSIGN_OR_RETURN(workspace_.normed, device_->NewMatrix(rows, spec_.hidden_size));
  LWQ_ASSIGN_OR_RETURN(workspace_.inner, device_->NewMatrix(1, inner));
  workspace_.rows = rows;
  return absl::OkStatus();
}

absl::StatusOr<const RopeTable*> Decoder::RopeFor(size_t layer, int64_t num_positions) const {
  const size_t rope = rope_of_layer_[layer];
  std::unique_ptr<RopeTable>& table = rope_tables_[rope];
  if (table == nullptr || table->num_positions() < num_positions) {
    LWQ_ASSIGN_OR_RETURN(table,
                         device_->NewRopeTable({inverse_frequencies_[rope], 1.0f}, num_positions));
  }
  return table.get();
}

absl::StatusOr<PreparedBatch> Decoder::PrepareBatch(const TokenBatch& batch) const {
  LWQ_ASSIGN_OR_RETURN(const std::vector<TokenChunk> chunks, CutIntoChunks(batch, kChunkTokens));
  PreparedBatch prepared;
  prepared.num_tokens = batch.num_tokens();
  for (const TokenChunk& chunk : chunks) {
    for (const int32_t position : chunk.positions) {
      prepared.num_positions = std::max<int64_t>(prepared.num_positions, int64_t{position} + 1);
    }
    LWQ_ASSIGN_OR_RETURN(auto on_device, device_->NewBatch(chunk.segments, chunk.positions));
    prepared.chunks.push_back({chunk.begin, chunk.size, std::move(on_device)});
  }
  return prepared;
}

absl::Status Decoder::RunLayer(const LayerWeights& layer, const TokenBatch& batch,
                               MatrixView hidden, const LinearInputObserver& observer,
                               absl::Span<double> cosines) const {
  LWQ_ASSIGN_OR_RETURN(const PreparedBatch prepared, PrepareBatch(batch));
  HostStates states(device_, hidden);
  return RunLayer(layer, prepared, states, observer, cosines);
}

absl::Status Decoder::RunLayer(const LayerWeights& layer, const PreparedBatch& batch,
                               StateStore& states, const LinearInputObserver& observer,
                               absl::Span<double> cosines) const {
  if (states.rows() != batch.num_tokens || states.cols() != spec_.hidden_size) {
    return absl::InvalidArgumentError(absl::StrCat("hidden states are [", states.rows(), ", ",
                                                   states.cols(), "], expected [", batch.num_tokens,
                                                   ", ", spec_.hidden_size, "]"));
  }
  if (!cosines.empty() && static_cast<int64_t>(cosines.size()) != batch.num_tokens) {
    return absl::InvalidArgumentError("one cosine per token is returned");
  }
  int64_t largest = 0;
  for (const PreparedBatch::Chunk& chunk : batch.chunks) largest = std::max(largest, chunk.size);
  if (largest == 0) return absl::OkStatus();
  LWQ_RETURN_IF_ERROR(ReserveWorkspace(largest));
  std::unique_ptr<DeviceBuffer<double>> cosine;
  if (!cosines.empty()) {
    LWQ_ASSIGN_OR_RETURN(cosine, device_->NewBuffer<double>(1, batch.num_tokens));
  }
  const size_t index = static_cast<size_t>(layer.layer);
  LWQ_ASSIGN_OR_RETURN(const RopeTable* rope, RopeFor(index, batch.num_positions));
  LayerRun run(*this, layer, slots_[index], *rope, observer, workspace_);
  for (const PreparedBatch::Chunk& chunk : batch.chunks) {
    const DeviceView<float> out = workspace_.hidden->Rows(0, chunk.size);
    LWQ_RETURN_IF_ERROR(states.Load(chunk.begin, out));
    LWQ_RETURN_IF_ERROR(Annotate(run.Run(chunk), "layer ", layer.layer));
    if (cosine != nullptr) {
      const DeviceView<float> in = workspace_.normed->Rows(0, chunk.size);
      LWQ_RETURN_IF_ERROR(states.Load(chunk.begin, in));
      LWQ_RETURN_IF_ERROR(
          device_->RowCosine(in, out, cosine->span().Part(chunk.begin, chunk.size)));
    }
    LWQ_RETURN_IF_ERROR(states.Store(out, chunk.begin));
  }
  return cosine == nullptr ? absl::OkStatus() : device_->Download(cosine->span(), cosines);
}

absl::StatusOr<HeadWeights> Decoder::LoadHead() const {
  HeadWeights head;
  const auto load = [&](DeviceView<float> weight) {
    return spec_.head.tied
               ? weights_->LoadDense(spec_.embedding.tensor, 0, device_, weight)
               : weights_->LoadLinear(spec_.head.linear().shape.module, device_, weight);
  };
  LWQ_ASSIGN_OR_ANNOTATE(head.projection, Prepare(spec_.vocab_size, spec_.hidden_size, load),
                         "the head");
  LWQ_ASSIGN_OR_RETURN(head.final_norm, LoadNorm(spec_.head.norm()));
  return head;
}

absl::Status Decoder::Logits(const HeadWeights& head, ConstMatrixView hidden,
                             DeviceView<float> logits) const {
  LWQ_ASSIGN_OR_RETURN(auto normed, device_->NewMatrix(hidden.rows, hidden.cols));
  LWQ_RETURN_IF_ERROR(device_->Upload(hidden, normed->view()));
  LWQ_RETURN_IF_ERROR(device_->RmsNorm(normed->view(), head.final_norm->span(),
                                       static_cast<float>(spec_.norm_epsilon), normed->view()));
  return Annotate(device_->Linear(normed->view(), *head.projection, logits), "the head");
}

absl::Status RunAllLayers(const Decoder& decoder, const TokenBatch& batch, MatrixView hidden,
                          const std::function<absl::Status(int layer)>& progress) {
  LWQ_RETURN_IF_ERROR(decoder.Embed(batch.tokens, hidden));
  LWQ_ASSIGN_OR_RETURN(const PreparedBatch prepared, decoder.PrepareBatch(batch));
  HostStates states(decoder.device(), hidden);
  for (int layer = 0; layer < decoder.spec().num_layers(); ++layer) {
    if (progress) LWQ_RETURN_IF_ERROR(progress(layer));
    LWQ_ASSIGN_OR_RETURN(const LayerWeights weights, decoder.LoadLayer(layer));
    LWQ_RETURN_IF_ERROR(decoder.RunLayer(weights, prepared, states));
  }
  return absl::OkStatus();
}

}  // namespace lwq
