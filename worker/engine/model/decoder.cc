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

absl::Status CheckSpec(const DecoderSpec& spec) {
  if (spec.activation != "silu") return CannotDo("activation", spec.activation);
  if (spec.logit_softcap != 0) {
    return CannotDo("logit_softcap", absl::StrCat(spec.logit_softcap));
  }
  const std::string& rope = spec.rope.type;
  if (rope != "default" && rope != "linear" && rope != "llama3") return CannotDo("rope", rope);
  if (spec.num_layers <= 0 || spec.hidden_size <= 0 || spec.vocab_size <= 0 || spec.head_dim <= 0 ||
      spec.head_dim % 2 != 0 || spec.num_kv_heads <= 0 || spec.num_heads % spec.num_kv_heads != 0) {
    return absl::InvalidArgumentError("the decoder's sizes are not positive and consistent");
  }
  return absl::OkStatus();
}

// In F32 throughout, as the models were trained.
std::vector<float> InverseFrequencies(const DecoderSpec& spec) {
  constexpr float kPi = 3.14159265358979f;
  const RopeSpec& rope = spec.rope;
  std::vector<float> frequencies(static_cast<size_t>(spec.head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(spec.head_dim);
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

// Rows of `cols` columns that begin at `offset` of a flat workspace.
MatrixView Carve(MatrixView flat, int64_t offset, int64_t rows, int64_t cols) {
  return {flat.data + offset, rows, cols, cols};
}

// The heads of a contiguous matrix as rows of their own.
MatrixView HeadsAsRows(MatrixView m, int head_dim) {
  return {m.data, m.rows * (m.cols / head_dim), head_dim, head_dim};
}

// One layer over one chunk that is in the workspace's `hidden`.
class LayerRun {
 public:
  LayerRun(const Decoder& decoder, const LayerWeights& layer, const RopeTable& rope,
           const LinearInputObserver& observer, DecoderWorkspace& workspace)
      : spec_(decoder.spec()),
        device_(decoder.device()),
        layer_(layer),
        rope_(rope),
        observer_(observer),
        w_(workspace) {}

  absl::Status Run(const TokenChunk& chunk) {
    const MatrixView hidden = w_.hidden->Rows(0, chunk.size);
    const MatrixView normed = w_.normed->Rows(0, chunk.size);
    const float epsilon = static_cast<float>(spec_.norm_epsilon);
    LWQ_RETURN_IF_ERROR(
        device_->RmsNorm(hidden, layer_.attention_norm->view().data, epsilon, normed));
    LWQ_RETURN_IF_ERROR(Observe(LinearInput::kAttention, normed));
    LWQ_ASSIGN_OR_RETURN(const MatrixView attended, Attend(chunk, normed, epsilon));
    LWQ_RETURN_IF_ERROR(Observe(LinearInput::kAttentionOutput, attended));
    LWQ_RETURN_IF_ERROR(device_->AddLinear(attended, Weight(LinearRole::kOutput), hidden));

    LWQ_RETURN_IF_ERROR(device_->RmsNorm(hidden, layer_.mlp_norm->view().data, epsilon, normed));
    LWQ_RETURN_IF_ERROR(Observe(LinearInput::kMlp, normed));
    const MatrixView inner = Carve(w_.inner->view(), 0, chunk.size, spec_.intermediate_size);
    LWQ_RETURN_IF_ERROR(
        device_->GatedLinear(normed, Weight(LinearRole::kGate), Weight(LinearRole::kUp), inner));
    LWQ_RETURN_IF_ERROR(Observe(LinearInput::kMlpHidden, inner));
    return device_->AddLinear(inner, Weight(LinearRole::kDown), hidden);
  }

 private:
  absl::Status Observe(LinearInput input, ConstMatrixView x) const {
    return observer_ ? observer_(input, x) : absl::OkStatus();
  }

  BiasedWeight Weight(LinearRole role) const {
    const size_t r = static_cast<size_t>(role);
    return {*layer_.linears[r],
            layer_.biases[r] == nullptr ? nullptr : layer_.biases[r]->view().data};
  }

  // Queries, keys, values and the answer share `inner` with what comes after them.
  absl::StatusOr<MatrixView> Attend(const TokenChunk& chunk, ConstMatrixView normed,
                                    float epsilon) {
    const int64_t rows = chunk.size;
    const int64_t query_cols = spec_.OutFeatures(LinearRole::kQuery);
    const int64_t key_cols = spec_.OutFeatures(LinearRole::kKey);
    const MatrixView inner = w_.inner->view();
    const MatrixView query = Carve(inner, 0, rows, query_cols);
    const MatrixView attended = Carve(inner, rows * query_cols, rows, query_cols);
    const MatrixView key = Carve(inner, rows * 2 * query_cols, rows, key_cols);
    const MatrixView value = Carve(inner, rows * (2 * query_cols + key_cols), rows, key_cols);
    LWQ_RETURN_IF_ERROR(device_->Linear(normed, Weight(LinearRole::kQuery), query));
    LWQ_RETURN_IF_ERROR(device_->Linear(normed, Weight(LinearRole::kKey), key));
    LWQ_RETURN_IF_ERROR(device_->Linear(normed, Weight(LinearRole::kValue), value));
    if (spec_.qk_norm) {
      const MatrixView q = HeadsAsRows(query, spec_.head_dim);
      const MatrixView k = HeadsAsRows(key, spec_.head_dim);
      LWQ_RETURN_IF_ERROR(device_->RmsNorm(q, layer_.query_norm->view().data, epsilon, q));
      LWQ_RETURN_IF_ERROR(device_->RmsNorm(k, layer_.key_norm->view().data, epsilon, k));
    }
    LWQ_RETURN_IF_ERROR(device_->Rope(query, spec_.head_dim, chunk.positions, rope_));
    LWQ_RETURN_IF_ERROR(device_->Rope(key, spec_.head_dim, chunk.positions, rope_));
    AttentionShape shape;
    shape.num_heads = spec_.num_heads;
    shape.num_kv_heads = spec_.num_kv_heads;
    shape.head_dim = spec_.head_dim;
    shape.scale = static_cast<float>(spec_.attention_scale != 0
                                         ? spec_.attention_scale
                                         : 1 / std::sqrt(static_cast<double>(spec_.head_dim)));
    shape.sliding_window = static_cast<int>(spec_.sliding_window);
    shape.logit_softcap = static_cast<float>(spec_.attention_softcap);
    LWQ_RETURN_IF_ERROR(device_->Attention(query, key, value, chunk.segments, shape, attended));
    return attended;
  }

  const DecoderSpec& spec_;
  Device* const device_;
  const LayerWeights& layer_;
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

Decoder::Decoder(DecoderSpec spec, const WeightSource* weights, Device* device, ComputeType compute)
    : spec_(std::move(spec)),
      weights_(weights),
      device_(device),
      compute_(compute),
      inverse_frequency_(InverseFrequencies(spec_)) {}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(DecoderSpec spec,
                                                         const WeightSource* weights,
                                                         Device* device, ComputeType compute) {
  LWQ_RETURN_IF_ERROR(CheckSpec(spec));
  if (!device->Supports(compute)) {
    return CannotDo("compute type", absl::StrCat(NameOf(compute), " on device ", device->name()));
  }
  return std::unique_ptr<Decoder>(new Decoder(std::move(spec), weights, device, compute));
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
    LWQ_RETURN_IF_ERROR(weights_->ReadDense(spec_.embedding_name(), tokens[i], row));
    if (spec_.embedding_scale == 1) continue;
    for (int64_t c = 0; c < row.cols; ++c) {
      row.data[c] *= static_cast<float>(spec_.embedding_scale);
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
    ConstMatrixView weight) const {
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<PreparedWeight> prepared,
                       device_->PrepareWeight(weight, compute_));
  return std::shared_ptr<const PreparedWeight>(std::move(prepared));
}

absl::StatusOr<LayerWeights> Decoder::LoadLayer(int layer) const {
  if (layer < 0 || layer >= spec_.num_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer, " of a model of ", spec_.num_layers));
  }
  LayerWeights weights;
  weights.layer = layer;
  for (int r = 0; r < kNumLinearRoles; ++r) {
    const LinearRole role = static_cast<LinearRole>(r);
    const size_t index = static_cast<size_t>(r);
    const std::string module = spec_.ModuleName(layer, role);
    Matrix host(spec_.OutFeatures(role), spec_.InFeatures(role));
    if (host.data() == nullptr) return absl::ResourceExhaustedError("no memory for " + module);
    LWQ_RETURN_IF_ERROR(weights_->ReadLinear(module, host.view()));
    LWQ_ASSIGN_OR_ANNOTATE(weights.linears[index], Prepare(host.view()), module);
    const LinearInput input = InputOf(role);
    const bool bias = input == LinearInput::kAttention         ? spec_.attention_bias
                      : input == LinearInput::kAttentionOutput ? spec_.attention_output_bias
                                                               : spec_.mlp_bias;
    if (!bias) continue;
    LWQ_ASSIGN_OR_RETURN(weights.biases[index],
                         LoadVector(module + ".bias", spec_.OutFeatures(role), 0));
  }
  const std::string prefix = spec_.LayerPrefix(layer);
  LWQ_ASSIGN_OR_RETURN(weights.attention_norm, LoadVector(prefix + "input_layernorm.weight",
                                                          spec_.hidden_size, spec_.norm_offset));
  LWQ_ASSIGN_OR_RETURN(weights.mlp_norm, LoadVector(prefix + "post_attention_layernorm.weight",
                                                    spec_.hidden_size, spec_.norm_offset));
  if (!spec_.qk_norm) return weights;
  LWQ_ASSIGN_OR_RETURN(weights.query_norm, LoadVector(prefix + "self_attn.q_norm.weight",
                                                      spec_.head_dim, spec_.norm_offset));
  LWQ_ASSIGN_OR_RETURN(weights.key_norm, LoadVector(prefix + "self_attn.k_norm.weight",
                                                    spec_.head_dim, spec_.norm_offset));
  return weights;
}

absl::Status Decoder::ReserveWorkspace(int64_t rows) const {
  if (workspace_.rows >= rows) return absl::OkStatus();
  workspace_ = DecoderWorkspace{};
  const int64_t attention =
      2 * (spec_.OutFeatures(LinearRole::kQuery) + spec_.OutFeatures(LinearRole::kKey));
  const int64_t inner = rows * std::max<int64_t>(attention, spec_.intermediate_size);
  LWQ_ASSIGN_OR_RETURN(workspace_.hidden, device_->NewMatrix(rows, spec_.hidden_size));
  LWQ_ASSIGN_OR_RETURN(workspace_.normed, device_->NewMatrix(rows, spec_.hidden_size));
  LWQ_ASSIGN_OR_RETURN(workspace_.inner, device_->NewMatrix(1, inner));
  workspace_.rows = rows;
  return absl::OkStatus();
}

absl::Status Decoder::RunLayer(const LayerWeights& layer, const TokenBatch& batch,
                               MatrixView hidden, const LinearInputObserver& observer,
                               absl::Span<double> cosines) const {
  if (hidden.rows != batch.num_tokens() || hidden.cols != spec_.hidden_size) {
    return absl::InvalidArgumentError(absl::StrCat("hidden states are [", hidden.rows, ", ",
                                                   hidden.cols, "], expected [", batch.num_tokens(),
                                                   ", ", spec_.hidden_size, "]"));
  }
  if (!cosines.empty() && static_cast<int64_t>(cosines.size()) != batch.num_tokens()) {
    return absl::InvalidArgumentError("one cosine a token is returned");
  }
  LWQ_ASSIGN_OR_RETURN(const std::vector<TokenChunk> chunks, CutIntoChunks(batch, kChunkTokens));
  int64_t largest = 0;
  for (const TokenChunk& chunk : chunks) largest = std::max(largest, chunk.size);
  if (largest == 0) return absl::OkStatus();
  LWQ_RETURN_IF_ERROR(ReserveWorkspace(largest));
  const RopeTable rope{inverse_frequency_, 1.0f};
  LayerRun run(*this, layer, rope, observer, workspace_);
  for (const TokenChunk& chunk : chunks) {
    const MatrixView rows = hidden.Rows(chunk.begin, chunk.size);
    const MatrixView out = workspace_.hidden->Rows(0, chunk.size);
    LWQ_RETURN_IF_ERROR(device_->Upload(rows, out));
    LWQ_RETURN_IF_ERROR(Annotate(run.Run(chunk), "layer ", layer.layer));
    if (!cosines.empty()) {
      const MatrixView in = workspace_.normed->Rows(0, chunk.size);
      LWQ_RETURN_IF_ERROR(device_->Upload(rows, in));
      LWQ_RETURN_IF_ERROR(device_->RowCosine(
          in, out,
          cosines.subspan(static_cast<size_t>(chunk.begin), static_cast<size_t>(chunk.size))));
    }
    LWQ_RETURN_IF_ERROR(device_->Download(out, rows));
  }
  return absl::OkStatus();
}

absl::StatusOr<HeadWeights> Decoder::LoadHead() const {
  HeadWeights head;
  Matrix host(spec_.vocab_size, spec_.hidden_size);
  if (host.data() == nullptr) return absl::ResourceExhaustedError("no memory for the head");
  if (spec_.tied_embeddings) {
    LWQ_RETURN_IF_ERROR(weights_->ReadDense(spec_.embedding_name(), 0, host.view()));
  } else {
    LWQ_RETURN_IF_ERROR(weights_->ReadLinear(spec_.head_module(), host.view()));
  }
  LWQ_ASSIGN_OR_ANNOTATE(head.projection, Prepare(host.view()), "the head");
  LWQ_ASSIGN_OR_RETURN(head.final_norm,
                       LoadVector(spec_.final_norm_name(), spec_.hidden_size, spec_.norm_offset));
  return head;
}

absl::Status Decoder::Logits(const HeadWeights& head, ConstMatrixView hidden,
                             MatrixView logits) const {
  LWQ_ASSIGN_OR_RETURN(auto normed, device_->NewMatrix(hidden.rows, hidden.cols));
  LWQ_RETURN_IF_ERROR(device_->Upload(hidden, normed->view()));
  LWQ_RETURN_IF_ERROR(device_->RmsNorm(normed->view(), head.final_norm->view().data,
                                       static_cast<float>(spec_.norm_epsilon), normed->view()));
  return Annotate(device_->Linear(normed->view(), *head.projection, logits), "the head");
}

absl::Status RunAllLayers(const Decoder& decoder, const TokenBatch& batch, MatrixView hidden,
                          const std::function<absl::Status(int layer)>& progress) {
  LWQ_RETURN_IF_ERROR(decoder.Embed(batch.tokens, hidden));
  for (int layer = 0; layer < decoder.spec().num_layers; ++layer) {
    if (progress) LWQ_RETURN_IF_ERROR(progress(layer));
    LWQ_ASSIGN_OR_RETURN(const LayerWeights weights, decoder.LoadLayer(layer));
    LWQ_RETURN_IF_ERROR(decoder.RunLayer(weights, batch, hidden));
  }
  return absl::OkStatus();
}

}  // namespace lwq
