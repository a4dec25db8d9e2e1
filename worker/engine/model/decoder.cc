#include "worker/engine/model/decoder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/model/layer_run.h"
#include "worker/engine/model/rope.h"
#include "worker/engine/model/sparse_run.h"
#include "worker/engine/model/token_chunks.h"

namespace lwq {
namespace {

// Sequences longer than what was trained have tables of their own with dynamic scaling.
constexpr size_t kMaxRopeTables = 64;

absl::Status CannotDo(absl::string_view field, absl::string_view found) {
  return Failure(absl::StatusCode::kUnimplemented, reasons::kArchUnsupported.name,
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

// Adding up experts' answers has no place for a norm behind them yet.
absl::Status CheckSpec(const DecoderSpec& spec) {
  for (const LayerSpec& layer : spec.layers) {
    if (!layer.experts.has_value()) continue;
    if (layer.FindNorm(NormRole::kPostMlp).has_value()) return CannotDo("norms of", "experts");
    for (const LinearSpec& linear : layer.linears) {
      if (linear.expert.has_value() && linear.bias) return CannotDo("a bias of", "experts");
    }
  }
  return CheckSizes(spec);
}

// By linear. What reads one input multiplies one matrix.
absl::StatusOr<std::vector<ActivationRule>> RulesOf(const LayerSpec& layer,
                                                    const WeightSource& weights) {
  std::vector<ActivationRule> rules;
  std::map<size_t, size_t> first_reader;
  for (size_t i = 0; i < layer.linears.size(); ++i) {
    const LinearSpec& linear = layer.linears[i];
    rules.push_back(weights.RuleOf(linear.shape.module));
    const size_t first = first_reader.emplace(linear.input, i).first->second;
    if (rules[first] == rules[i]) continue;
    return Failure(reasons::kQuantFormatUnsupported,
                   absl::StrCat(linear.shape.module, " rounds its inputs otherwise than ",
                                layer.linears[first].shape.module,
                                ", which reads the same ones; the decoder does them alike only"));
  }
  return rules;
}

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
  for (const LayerSpec& layer : spec_.layers) {
    const RopeSpec& rope = layer.attention.rope;
    const auto at = std::find(ropes_.begin(), ropes_.end(), rope);
    rope_of_layer_.push_back(static_cast<size_t>(at - ropes_.begin()));
    if (at == ropes_.end()) ropes_.push_back(rope);
  }
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

void Decoder::set_spare_bytes(int64_t states, int64_t weights) {
  spare_states_bytes_ = states;
  kept_weights_.set_limit_bytes(weights);
}

absl::Status Decoder::Embed(absl::Span<const int32_t> tokens, MatrixView hidden) const {
  if (hidden.rows != static_cast<int64_t>(tokens.size()) || hidden.cols != spec_.hidden_size) {
    return absl::InvalidArgumentError(absl::StrCat("hidden states are [", hidden.rows, ", ",
                                                   hidden.cols, "], expected [", tokens.size(),
                                                   ", ", spec_.hidden_size, "]"));
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= spec_.vocab_size) {
      return Failure(
          reasons::kTokenOutOfRange,
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
  weights.load_expert = [this, &spec](size_t at) { return LoadLinear(spec.linears[at]); };
  LWQ_ASSIGN_OR_RETURN(weights.rules, RulesOf(spec, *weights_));
  for (const LinearSpec& linear : spec.linears) {
    std::shared_ptr<const PreparedWeight>& weight = weights.linears.emplace_back();
    std::shared_ptr<DeviceMatrix>& bias = weights.biases.emplace_back();
    if (linear.expert.has_value()) continue;
    LWQ_ASSIGN_OR_RETURN(weight, LoadLinear(linear));
    if (!linear.bias) continue;
    LWQ_ASSIGN_OR_RETURN(bias, LoadVector(linear.bias_name(), linear.shape.out_features, 0));
  }
  for (const NormSpec& norm : spec.norms) {
    LWQ_ASSIGN_OR_RETURN(weights.norms.emplace_back(), LoadNorm(norm));
  }
  if (!spec.experts.has_value()) return weights;
  LWQ_ASSIGN_OR_RETURN(weights.router, LoadRouter(spec.experts->router, spec.experts->num_experts));
  if (spec.experts->shared_gate.empty()) return weights;
  LWQ_ASSIGN_OR_RETURN(weights.shared_gate, LoadRouter(spec.experts->shared_gate, 1));
  return weights;
}

absl::StatusOr<std::shared_ptr<const PreparedWeight>> Decoder::LoadLinear(
    const LinearSpec& linear) const {
  const LinearShape& shape = linear.shape;
  const auto load = [&](DeviceView<float> weight) {
    return weights_->LoadLinear(shape.module, device_, weight);
  };
  const auto prepare = [&] { return Prepare(shape.out_features, shape.in_features, load); };
  LWQ_ASSIGN_OR_ANNOTATE(auto weight, kept_weights_.Get(shape.module, prepare), shape.module);
  return weight;
}

// In F32 always: what it says decides more than it weighs.
absl::StatusOr<std::shared_ptr<const PreparedWeight>> Decoder::LoadRouter(const std::string& tensor,
                                                                          int64_t rows) const {
  LWQ_ASSIGN_OR_RETURN(auto weight, device_->NewMatrix(rows, spec_.hidden_size));
  LWQ_RETURN_IF_ERROR(weights_->LoadDense(tensor, 0, device_, weight->view()));
  LWQ_ASSIGN_OR_ANNOTATE(std::unique_ptr<PreparedWeight> prepared,
                         device_->PrepareWeight(weight->view(), ComputeType::kF32), tensor);
  return std::shared_ptr<const PreparedWeight>(std::move(prepared));
}

absl::Status Decoder::ReserveWorkspace(const PreparedBatch& batch) const {
  const int64_t keys = int64_t{spec_.num_kv_heads} * spec_.head_dim;
  if (batch.longest_history > (workspace_.keys == nullptr ? 0 : workspace_.keys->view().rows)) {
    workspace_.keys.reset();
    workspace_.values.reset();
    LWQ_ASSIGN_OR_RETURN(workspace_.keys, device_->NewMatrix(batch.longest_history, keys));
    LWQ_ASSIGN_OR_RETURN(workspace_.values, device_->NewMatrix(batch.longest_history, keys));
  }
  int64_t rows = 0;
  for (const PreparedBatch::Chunk& chunk : batch.chunks) rows = std::max(rows, chunk.size);
  if (workspace_.rows >= rows) return absl::OkStatus();
  workspace_.hidden.reset();
  workspace_.normed.reset();
  workspace_.inner.reset();
  int64_t widest = 0;
  for (size_t l = 0; l < slots_.size(); ++l) {
    widest = std::max(widest, InnerWidth(spec_, spec_.layers[l], slots_[l]));
  }
  rows = RoundUpForExperts(rows);
  const int64_t inner = rows * widest;
  LWQ_ASSIGN_OR_RETURN(workspace_.hidden, device_->NewMatrix(rows, spec_.hidden_size));
  LWQ_ASSIGN_OR_RETURN(workspace_.normed, device_->NewMatrix(rows, spec_.hidden_size));
  LWQ_ASSIGN_OR_RETURN(workspace_.inner, device_->NewMatrix(1, inner));
  LWQ_RETURN_IF_ERROR(ReserveForExperts(rows));
  workspace_.rows = rows;
  return absl::OkStatus();
}

absl::Status Decoder::ReserveForExperts(int64_t rows) const {
  int64_t experts = 0;
  for (const LayerSlots& slots : slots_) {
    experts = std::max(experts, static_cast<int64_t>(slots.experts.size()));
  }
  if (experts == 0) return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(workspace_.gathered, device_->NewMatrix(rows, spec_.hidden_size));
  LWQ_ASSIGN_OR_RETURN(workspace_.answer, device_->NewMatrix(rows, spec_.hidden_size));
  LWQ_ASSIGN_OR_RETURN(workspace_.sum, device_->NewMatrix(rows, spec_.hidden_size));
  LWQ_ASSIGN_OR_RETURN(workspace_.logits, device_->NewMatrix(rows, experts));
  LWQ_ASSIGN_OR_RETURN(workspace_.gates, device_->NewMatrix(rows, 1));
  return absl::OkStatus();
}

absl::StatusOr<const RopeTable*> Decoder::RopeFor(size_t layer, int64_t rope_length,
                                                  int64_t num_positions) const {
  const size_t index = rope_of_layer_[layer];
  const RopeSpec& rope = ropes_[index];
  const int64_t length = RopeLength(rope, rope_length);
  std::unique_ptr<RopeTable>& table = rope_tables_[{index, length}];
  if (table == nullptr || table->num_positions() < num_positions) {
    const std::vector<float> frequencies = InverseFrequencies(rope, spec_.head_dim, length);
    const RopeSettings settings = {frequencies, static_cast<float>(rope.attention_factor),
                                   spec_.head_dim};
    LWQ_ASSIGN_OR_RETURN(table, device_->NewRopeTable(settings, num_positions));
  }
  return table.get();
}

// The largest of what the model's embeddings make of a length: each gives for it what it gives for
// the length itself, because none exceeds that and all grow with it.
int64_t Decoder::RopeLengthOf(int64_t length) const {
  int64_t longest = 0;
  for (const RopeSpec& rope : ropes_) longest = std::max(longest, RopeLength(rope, length));
  return longest;
}

absl::StatusOr<PreparedBatch> Decoder::PrepareBatch(const TokenBatch& batch) const {
  const auto rope_length = [this](int64_t length) { return RopeLengthOf(length); };
  LWQ_ASSIGN_OR_RETURN(const std::vector<TokenChunk> chunks,
                       CutIntoChunks(batch, chunk_tokens_, rope_length));
  PreparedBatch prepared;
  prepared.num_tokens = batch.num_tokens();
  for (const TokenChunk& chunk : chunks) {
    for (const int32_t position : chunk.positions) {
      prepared.num_positions = std::max<int64_t>(prepared.num_positions, int64_t{position} + 1);
    }
    if (chunk.size > chunk_tokens_ && chunk.segments.size() == 1) {
      LWQ_RETURN_IF_ERROR(AddParts(chunk, prepared));
      continue;
    }
    PreparedBatch::Chunk& whole = prepared.chunks.emplace_back();
    whole.begin = chunk.begin;
    whole.size = chunk.size;
    whole.rope_length = chunk.rope_length;
    LWQ_ASSIGN_OR_RETURN(whole.on_device, device_->NewBatch(chunk.segments, chunk.positions));
  }
  return prepared;
}

absl::Status Decoder::AddParts(const TokenChunk& chunk, PreparedBatch& prepared) const {
  const auto positions = absl::MakeConstSpan(chunk.positions);
  std::vector<Segment> segments;  // the parts so far, each seeing those before it
  for (int64_t first = 0; first < chunk.size; first += chunk_tokens_) {
    const int64_t size = std::min(chunk_tokens_, chunk.size - first);
    const int32_t position = positions[static_cast<size_t>(first)];
    segments.push_back({first, size, static_cast<int32_t>(segments.size()) - 1, position});
    const Segment alone = {0, size, -1, position};
    PreparedBatch::Chunk& part = prepared.chunks.emplace_back();
    part.begin = chunk.begin + first;
    part.size = size;
    part.rope_length = chunk.rope_length;
    part.history = first;
    LWQ_ASSIGN_OR_RETURN(part.on_device,
                         device_->NewBatch({alone}, positions.subspan(static_cast<size_t>(first),
                                                                      static_cast<size_t>(size))));
    LWQ_ASSIGN_OR_RETURN(
        part.attended,
        device_->NewBatch(segments, positions.first(static_cast<size_t>(first + size))));
  }
  prepared.longest_history = std::max(prepared.longest_history, chunk.size);
  return absl::OkStatus();
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
  if (batch.num_tokens == 0) return absl::OkStatus();
  LWQ_RETURN_IF_ERROR(ReserveWorkspace(batch));
  std::unique_ptr<DeviceBuffer<double>> cosine;
  if (!cosines.empty()) {
    LWQ_ASSIGN_OR_RETURN(cosine, device_->NewBuffer<double>(1, batch.num_tokens));
  }
  const size_t index = static_cast<size_t>(layer.layer);
  if (rope_tables_.size() > kMaxRopeTables) rope_tables_.clear();
  const auto rope_of = [&](const PreparedBatch::Chunk& chunk) {
    return RopeFor(index, chunk.rope_length, batch.num_positions);
  };
  LayerRun run(*this, layer, slots_[index], observer, workspace_);
  if (slots_[index].sparse()) {
    SparseRun sparse(*this, layer, slots_[index], observer, scratch_directory_, workspace_, run);
    LWQ_RETURN_IF_ERROR(
        Annotate(sparse.Run(batch, states, rope_of, cosine.get()), "layer ", index));
  } else {
    for (const PreparedBatch::Chunk& chunk : batch.chunks) {
      LWQ_ASSIGN_OR_RETURN(const RopeTable* rope, rope_of(chunk));
      const DeviceView<float> out = workspace_.hidden->Rows(0, chunk.size);
      LWQ_RETURN_IF_ERROR(states.Load(chunk.begin, out));
      LWQ_RETURN_IF_ERROR(Annotate(run.Run(chunk, *rope), "layer ", layer.layer));
      if (cosine != nullptr) {
        const DeviceView<float> in = workspace_.normed->Rows(0, chunk.size);
        LWQ_RETURN_IF_ERROR(states.Load(chunk.begin, in));
        LWQ_RETURN_IF_ERROR(
            device_->RowCosine(in, out, cosine->span().Part(chunk.begin, chunk.size)));
      }
      LWQ_RETURN_IF_ERROR(states.Store(out, chunk.begin));
    }
  }
  return cosine == nullptr ? absl::OkStatus() : device_->Download(cosine->span(), cosines);
}

absl::StatusOr<std::shared_ptr<DeviceMatrix>> Decoder::LoadHeadNorm() const {
  return LoadNorm(spec_.head.norm());
}

absl::Status Decoder::LoadHeadRows(int64_t first, DeviceView<float> out) const {
  if (spec_.head.tied) return weights_->LoadDense(spec_.embedding.tensor, first, device_, out);
  const std::string& module = spec_.head.linear().shape.module;
  if (weights_->RuleOf(module) != ActivationRule::kNone) {
    return Failure(reasons::kQuantFormatUnsupported,
                   absl::StrCat(module, " rounds its inputs; the decoder does so in layers only"));
  }
  return weights_->LoadDense(absl::StrCat(module, ".weight"), first, device_, out);
}

absl::Status RunAllLayers(const Decoder& decoder, const TokenBatch& batch, MatrixView hidden,
                          const std::function<absl::Status(int layer)>& progress) {
  LWQ_RETURN_IF_ERROR(decoder.Embed(batch.tokens, hidden));
  LWQ_ASSIGN_OR_RETURN(const PreparedBatch prepared, decoder.PrepareBatch(batch));
  LWQ_ASSIGN_OR_RETURN(const auto states, decoder.OpenStates(hidden));
  for (int layer = 0; layer < decoder.spec().num_layers(); ++layer) {
    if (progress) LWQ_RETURN_IF_ERROR(progress(layer));
    LWQ_ASSIGN_OR_RETURN(const LayerWeights weights, decoder.LoadLayer(layer));
    LWQ_RETURN_IF_ERROR(decoder.RunLayer(weights, prepared, *states));
  }
  LWQ_RETURN_IF_ERROR(states->Flush());
  decoder.ReleaseWorkspace();
  return absl::OkStatus();
}

}  // namespace lwq
