#include "worker/engine/model/sparse_run.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/tensor/mapped_matrix.h"

namespace lwq {
namespace {

// Hidden states that are kept while the layer runs: in memory, or in a file.
class KeptStates {
 public:
  static absl::StatusOr<std::unique_ptr<KeptStates>> Create(Device* device,
                                                            const std::string& scratch,
                                                            int64_t rows, int64_t cols) {
    auto kept = std::make_unique<KeptStates>();
    if (scratch.empty()) {
      kept->memory_ = Matrix(rows, cols);
      if (kept->memory_.data() == nullptr) {
        return absl::ResourceExhaustedError("no memory for the experts' hidden states");
      }
      kept->store_.emplace(device, kept->memory_.view());
    } else {
      LWQ_ASSIGN_OR_RETURN(MappedMatrix file, MappedMatrix::Create(scratch, rows, cols));
      kept->file_.emplace(std::move(file));
      kept->store_.emplace(device, kept->file_->view());
    }
    return kept;
  }
  StateStore& store() { return *store_; }

 private:
  Matrix memory_;
  std::optional<MappedMatrix> file_;
  std::optional<HostStates> store_;
};

}  // namespace

SparseRun::SparseRun(const Decoder& decoder, const LayerWeights& weights, const LayerSlots& slots,
                     const LinearInputObserver& observer, const std::string& scratch,
                     DecoderWorkspace& workspace, LayerRun& run)
    : spec_(decoder.spec()),
      layer_(spec_.layers[static_cast<size_t>(weights.layer)]),
      device_(decoder.device()),
      weights_(weights),
      slots_(slots),
      observer_(observer),
      scratch_(scratch),
      w_(workspace),
      run_(run) {}

absl::Status SparseRun::Run(const PreparedBatch& batch, StateStore& states, const RopeOf& rope_of,
                            DeviceBuffer<double>* cosine) {
  LWQ_ASSIGN_OR_RETURN(const auto sums,
                       KeptStates::Create(device_, scratch_, states.rows(), states.cols()));
  std::unique_ptr<KeptStates> inputs;
  if (cosine != nullptr) {
    LWQ_ASSIGN_OR_RETURN(inputs,
                         KeptStates::Create(device_, scratch_, states.rows(), states.cols()));
  }
  StateStore* const before = inputs == nullptr ? nullptr : &inputs->store();
  LWQ_RETURN_IF_ERROR(AttendAndRoute(batch, states, sums->store(), before, rope_of));
  LWQ_RETURN_IF_ERROR(SortTokens(batch));
  for (size_t first = 0; first < slots_.experts.size(); first += kExpertsAtOnce) {
    const size_t end = std::min(first + kExpertsAtOnce, slots_.experts.size());
    LWQ_RETURN_IF_ERROR(RunExperts(batch, states, sums->store(), first, end));
  }
  return Finish(batch, states, sums->store(), before, cosine);
}

// Leaves the hidden states behind attention, and as sums what the shared expert answers.
absl::Status SparseRun::AttendAndRoute(const PreparedBatch& batch, StateStore& states,
                                       StateStore& sums, StateStore* inputs,
                                       const RopeOf& rope_of) {
  const int64_t per_token = layer_.experts->per_token;
  LWQ_ASSIGN_OR_RETURN(chosen_, device_->NewBuffer<int32_t>(batch.num_tokens, per_token));
  LWQ_ASSIGN_OR_RETURN(share_, device_->NewMatrix(batch.num_tokens, per_token));
  for (const PreparedBatch::Chunk& chunk : batch.chunks) {
    LWQ_ASSIGN_OR_RETURN(const RopeTable* rope, rope_of(chunk));
    const DeviceView<float> hidden = w_.hidden->Rows(0, chunk.size);
    const DeviceView<float> sum = w_.sum->Rows(0, chunk.size);
    LWQ_RETURN_IF_ERROR(states.Load(chunk.begin, hidden));
    if (inputs != nullptr) LWQ_RETURN_IF_ERROR(inputs->Store(hidden, chunk.begin));
    LWQ_RETURN_IF_ERROR(run_.RunAttention(chunk, *rope));
    LWQ_RETURN_IF_ERROR(states.Store(hidden, chunk.begin));
    LWQ_ASSIGN_OR_RETURN(const DeviceView<float> normed, run_.MlpInput(chunk.size));
    LWQ_RETURN_IF_ERROR(run_.ObserveInput(layer_.experts->input, normed));
    const DeviceView<float> logits =
        w_.logits->Carve(0, chunk.size, static_cast<int64_t>(slots_.experts.size()));
    LWQ_RETURN_IF_ERROR(device_->Linear(normed, *weights_.router, logits));
    LWQ_RETURN_IF_ERROR(device_->ChooseExperts(logits, layer_.experts->normalized,
                                               chosen_->Rows(chunk.begin, chunk.size),
                                               share_->Rows(chunk.begin, chunk.size)));
    LWQ_RETURN_IF_ERROR(RunShared(normed, sum));
    LWQ_RETURN_IF_ERROR(sums.Store(sum, chunk.begin));
  }
  return absl::OkStatus();
}

// `normed` is left as the shared expert multiplies it, which the gate before it does not.
absl::Status SparseRun::RunShared(DeviceView<float> normed, DeviceView<float> sum) {
  if (!slots_.has_mlp) return device_->FillZero(sum);
  const DeviceView<float> gates = w_.gates->Rows(0, normed.rows);
  LWQ_RETURN_IF_ERROR(device_->Linear(normed, *weights_.shared_gate, gates));
  LWQ_RETURN_IF_ERROR(device_->RoundRows(weights_.rules[slots_.up], normed));
  LWQ_ASSIGN_OR_RETURN(const DeviceView<float> inner, run_.GateUp(normed));
  LWQ_RETURN_IF_ERROR(run_.EnterLinear(slots_.down, inner));
  LWQ_RETURN_IF_ERROR(device_->Linear(inner, run_.Weight(slots_.down), sum));
  return device_->SigmoidRows({gates.data, gates.rows}, sum);
}

// By chunk and expert the tokens that go there, in token order. The one time in a layer that the
// host waits for the device: how large the products become depends on it.
absl::Status SparseRun::SortTokens(const PreparedBatch& batch) {
  const size_t per_token = static_cast<size_t>(layer_.experts->per_token);
  const size_t num_choices = static_cast<size_t>(batch.num_tokens) * per_token;
  std::vector<int32_t> chosen(num_choices);
  std::vector<float> share(num_choices);
  LWQ_RETURN_IF_ERROR(device_->Download(chosen_->span(), absl::MakeSpan(chosen)));
  LWQ_RETURN_IF_ERROR(device_->Download(share_->span(), absl::MakeSpan(share)));
  std::vector<int32_t> rows;
  std::vector<float> shares;
  for (const PreparedBatch::Chunk& chunk : batch.chunks) {
    std::vector<std::vector<size_t>> choices(slots_.experts.size());
    const size_t first = static_cast<size_t>(chunk.begin) * per_token;
    for (size_t i = first; i < first + static_cast<size_t>(chunk.size) * per_token; ++i) {
      choices[static_cast<size_t>(chosen[i])].push_back(i);
    }
    std::vector<Routed>& routed = routed_.emplace_back();
    for (const std::vector<size_t>& of_expert : choices) {
      const int64_t count = static_cast<int64_t>(of_expert.size());
      routed.push_back({static_cast<int64_t>(rows.size()), count});
      for (const size_t i : of_expert) {
        rows.push_back(static_cast<int32_t>((i - first) / per_token));
        shares.push_back(share[i]);
      }
      for (int64_t i = count; i < RoundUpForExperts(count); ++i) {
        rows.push_back(rows.back());
        shares.push_back(0);
      }
    }
  }
  const int64_t total = static_cast<int64_t>(rows.size());
  LWQ_ASSIGN_OR_RETURN(rows_, device_->NewBuffer<int32_t>(1, total));
  LWQ_ASSIGN_OR_RETURN(shares_, device_->NewMatrix(1, total));
  LWQ_RETURN_IF_ERROR(device_->Upload(absl::MakeConstSpan(rows), rows_->span()));
  return device_->Upload(absl::MakeConstSpan(shares), shares_->span());
}

absl::StatusOr<SparseRun::ExpertWeights> SparseRun::Load(size_t expert) const {
  const auto empty = [expert](const std::vector<Routed>& chunk) {
    return chunk[expert].count == 0;
  };
  ExpertWeights loaded;
  if (std::all_of(routed_.begin(), routed_.end(), empty)) return loaded;
  const LayerSlots::Expert& slots = slots_.experts[expert];
  LWQ_ASSIGN_OR_RETURN(loaded.gate, weights_.load_expert(slots.gate));
  LWQ_ASSIGN_OR_RETURN(loaded.up, weights_.load_expert(slots.up));
  LWQ_ASSIGN_OR_RETURN(loaded.down, weights_.load_expert(slots.down));
  return loaded;
}

// Adds what the experts [first, end) answer, each in its turn.
absl::Status SparseRun::RunExperts(const PreparedBatch& batch, StateStore& states,
                                   StateStore& sums, size_t first, size_t end) {
  std::vector<ExpertWeights> loaded;
  for (size_t expert = first; expert < end; ++expert) {
    LWQ_ASSIGN_OR_RETURN(loaded.emplace_back(), Load(expert));
  }
  for (size_t c = 0; c < batch.chunks.size(); ++c) {
    const PreparedBatch::Chunk& chunk = batch.chunks[c];
    const DeviceView<float> sum = w_.sum->Rows(0, chunk.size);
    const auto begin = routed_[c].begin() + static_cast<int64_t>(first);
    const auto unused = [](const Routed& routed) { return routed.count == 0; };
    if (std::all_of(begin, begin + static_cast<int64_t>(end - first), unused)) continue;
    LWQ_RETURN_IF_ERROR(states.Load(chunk.begin, w_.hidden->Rows(0, chunk.size)));
    LWQ_ASSIGN_OR_RETURN(const DeviceView<float> normed, run_.MlpInput(chunk.size));
    LWQ_RETURN_IF_ERROR(sums.Load(chunk.begin, sum));
    for (size_t expert = first; expert < end; ++expert) {
      LWQ_RETURN_IF_ERROR(
          RunExpert(expert, loaded[expert - first], routed_[c][expert], normed, sum));
    }
    LWQ_RETURN_IF_ERROR(sums.Store(sum, chunk.begin));
  }
  if (!observer_.finished) return absl::OkStatus();
  for (size_t expert = first; expert < end; ++expert) {
    const LayerSlots::Expert& slots = slots_.experts[expert];
    LWQ_RETURN_IF_ERROR(observer_.finished(layer_.linears[slots.up].input));
    LWQ_RETURN_IF_ERROR(observer_.finished(layer_.linears[slots.down].input));
  }
  return absl::OkStatus();
}

absl::Status SparseRun::RunExpert(size_t expert, const ExpertWeights& weights, const Routed& routed,
                                  DeviceView<const float> normed, DeviceView<float> sum) {
  if (routed.count == 0) return absl::OkStatus();
  const LayerSlots::Expert& slots = slots_.experts[expert];
  const int64_t padded = RoundUpForExperts(routed.count);
  const DeviceView<float> x = w_.gathered->Rows(0, padded);
  const DeviceView<float> inner =
      w_.inner->Carve(0, padded, layer_.linears[slots.down].shape.in_features);
  const DeviceView<float> answer = w_.answer->Rows(0, padded);
  LWQ_RETURN_IF_ERROR(device_->GatherRows(normed, rows_->span().Part(routed.begin, padded), x));
  LWQ_RETURN_IF_ERROR(run_.EnterLinear(slots.up, x.Rows(0, routed.count)));
  LWQ_RETURN_IF_ERROR(
      device_->GatedLinear(x, *weights.gate, *weights.up, spec_.activation, inner));
  LWQ_RETURN_IF_ERROR(run_.EnterLinear(slots.down, inner.Rows(0, routed.count)));
  LWQ_RETURN_IF_ERROR(device_->Linear(inner, *weights.down, answer));
  return device_->ScatterAddRows(answer.Rows(0, routed.count),
                                 rows_->span().Part(routed.begin, routed.count),
                                 shares_->span().Part(routed.begin, routed.count), sum);
}

// Hidden states behind attention become the layer's output.
absl::Status SparseRun::Finish(const PreparedBatch& batch, StateStore& states, StateStore& sums,
                               StateStore* inputs, DeviceBuffer<double>* cosine) {
  for (const PreparedBatch::Chunk& chunk : batch.chunks) {
    const DeviceView<float> out = w_.hidden->Rows(0, chunk.size);
    const DeviceView<float> sum = w_.sum->Rows(0, chunk.size);
    LWQ_RETURN_IF_ERROR(states.Load(chunk.begin, out));
    LWQ_RETURN_IF_ERROR(sums.Load(chunk.begin, sum));
    LWQ_RETURN_IF_ERROR(device_->Add(sum, out));
    if (cosine != nullptr) {
      const DeviceView<float> in = w_.normed->Rows(0, chunk.size);
      LWQ_RETURN_IF_ERROR(inputs->Load(chunk.begin, in));
      LWQ_RETURN_IF_ERROR(
          device_->RowCosine(in, out, cosine->span().Part(chunk.begin, chunk.size)));
    }
    LWQ_RETURN_IF_ERROR(states.Store(out, chunk.begin));
  }
  return absl::OkStatus();
}

}  // namespace lwq
