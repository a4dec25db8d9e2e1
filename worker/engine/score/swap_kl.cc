#include "worker/engine/score/swap_kl.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/model/token_chunks.h"

namespace lwq {
namespace {

// Logits held at once, for the source and again for a candidate: 64 MiB each.
constexpr int64_t kMaxLogits = int64_t{1} << 24;
constexpr int64_t kMaxHeadRows = 1024;

// A unit at a format, and where its linears sit in the layer.
struct Candidate {
  size_t unit;
  int format;
};

class SwapKlRun {
 public:
  SwapKlRun(const Decoder& decoder, const UnitCostRequest& request)
      : decoder_(decoder), spec_(decoder.spec()), request_(request) {
    for (size_t u = 0; u < request.units.size(); ++u) {
      sums_.emplace_back(static_cast<size_t>(request.num_formats[u]), 0.0);
      for (int f = 0; f < request.num_formats[u]; ++f) candidates_.push_back({u, f});
    }
  }

  absl::StatusOr<UnitCosts> Run() {
    LWQ_RETURN_IF_ERROR(CheckRequest());
    if (candidates_.empty()) return sums_;
    LWQ_ASSIGN_OR_RETURN(const std::vector<TokenChunk> chunks,
                         CutIntoChunks(*request_.batch, ChunkTokens()));
    num_chunks_ = chunks.size();
    for (chunk_ = 0; chunk_ < num_chunks_; ++chunk_) {
      LWQ_RETURN_IF_ERROR(RunChunk(chunks[chunk_]));
    }
    const double tokens = static_cast<double>(request_.batch->num_tokens());
    for (auto& unit : sums_) {
      for (double& sum : unit) sum /= tokens;
    }
    return sums_;
  }

 private:
  int layer() const { return request_.place.layer; }
  int64_t num_candidates() const { return static_cast<int64_t>(candidates_.size()); }

  int64_t ChunkTokens() const {
    const int64_t bytes_a_token =
        num_candidates() * spec_.hidden_size * static_cast<int64_t>(sizeof(float));
    return std::max<int64_t>(1, request_.max_state_bytes / bytes_a_token);
  }

  absl::Status CheckRequest() const {
    const int64_t tokens = request_.batch->num_tokens();
    const auto fits = [&](ConstMatrixView m) {
      return m.rows == tokens && m.cols == spec_.hidden_size;
    };
    const bool in_layer = request_.place.in_layer();
    const bool placed =
        in_layer ? layer() >= 0 && layer() < spec_.num_layers()
                 : request_.place == Place::Head() || request_.place == Place::Embedding();
    if (tokens == 0 || !fits(request_.source_output) || (in_layer && !fits(request_.layer_input)) ||
        !placed) {
      return absl::InvalidArgumentError(
          absl::StrCat("swap KL of ", in_layer ? absl::StrCat("layer ", layer()) : "the head",
                       " over ", tokens, " tokens: hidden states must be [tokens, ",
                       spec_.hidden_size, "] and the units those of one of ", spec_.num_layers(),
                       " layers, of the head or of the embedding"));
    }
    return absl::OkStatus();
  }

  // `step` of `steps` of the present chunk is done.
  absl::Status Report(int step, int steps) const {
    if (!request_.progress) return absl::OkStatus();
    return request_.progress((static_cast<double>(chunk_) + static_cast<double>(step) / steps) /
                             static_cast<double>(num_chunks_));
  }

  absl::StatusOr<std::shared_ptr<const PreparedWeight>> Replacement(
      const Candidate& candidate, const LinearShape& linear) const {
    return decoder_.Prepare(linear.out_features, linear.in_features, [&](DeviceView<float> weight) {
      return request_.replacement(candidate.unit, linear, candidate.format, weight);
    });
  }

  // The layer with the candidate's unit exchanged.
  absl::StatusOr<LayerWeights> Exchange(const LayerWeights& clean,
                                        const Candidate& candidate) const {
    const LayerSpec& layer_spec = spec_.at(request_.place);
    LayerWeights layer = clean;
    std::map<size_t, const LinearShape*> of_experts;
    for (const LinearShape& linear : request_.units[candidate.unit].linears) {
      LWQ_ASSIGN_OR_RETURN(const size_t slot, SlotOf(layer_spec, linear));
      if (layer_spec.linears[slot].expert.has_value()) {
        of_experts[slot] = &linear;
        continue;
      }
      LWQ_ASSIGN_OR_RETURN(layer.linears[slot], Replacement(candidate, linear));
    }
    if (of_experts.empty()) return layer;
    // In their turn, as the layer runs.
    layer.load_expert = [this, candidate, load_clean = clean.load_expert,
                         exchanged = std::move(of_experts)](size_t slot)
        -> absl::StatusOr<std::shared_ptr<const PreparedWeight>> {
      const auto found = exchanged.find(slot);
      return found == exchanged.end() ? load_clean(slot) : Replacement(candidate, *found->second);
    };
    return layer;
  }

  // The chunk's sequences, once a candidate.
  TokenBatch Repeat(const TokenChunk& chunk, int64_t times) const {
    TokenBatch batch;
    const auto tokens =
        absl::MakeConstSpan(request_.batch->tokens)
            .subspan(static_cast<size_t>(chunk.begin), static_cast<size_t>(chunk.size));
    for (int64_t i = 0; i < times; ++i) {
      const int32_t first = static_cast<int32_t>(batch.segments.size());
      for (Segment s : chunk.segments) {
        s.begin += i * chunk.size;
        if (s.parent >= 0) s.parent += first;
        batch.segments.push_back(s);
      }
      batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
    }
    return batch;
  }

  absl::Status RunChunk(const TokenChunk& chunk) {
    if (request_.place.in_layer()) return RunLayerChunk(chunk);
    return request_.place == Place::Head() ? RunHeadChunk(chunk) : RunEmbeddingChunk(chunk);
  }

  absl::Status RunLayerChunk(const TokenChunk& chunk) {
    const int swapped = layer();
    const int steps = spec_.num_layers() - swapped + 1;
    LWQ_RETURN_IF_ERROR(Report(0, steps));
    Matrix states(num_candidates() * chunk.size, spec_.hidden_size);
    if (states.data() == nullptr) {
      return absl::ResourceExhaustedError("no memory for the candidates' hidden states");
    }
    LWQ_RETURN_IF_ERROR(OpenCandidates(chunk, states));
    LWQ_RETURN_IF_ERROR(Report(1, steps));
    LWQ_ASSIGN_OR_RETURN(const PreparedBatch all,
                         decoder_.PrepareBatch(Repeat(chunk, num_candidates())));
    HostStates store(decoder_.device(), states.view());
    for (int layer = swapped + 1; layer < spec_.num_layers(); ++layer) {
      LWQ_ASSIGN_OR_RETURN(const LayerWeights weights, decoder_.LoadLayer(layer));
      LWQ_RETURN_IF_ERROR(decoder_.RunLayer(weights, all, store));
      LWQ_RETURN_IF_ERROR(Report(layer - swapped + 1, steps));
    }
    LWQ_ASSIGN_OR_RETURN(const HeadWeights head, decoder_.LoadHead());
    const std::vector<const HeadWeights*> heads(candidates_.size(), &head);
    std::vector<ConstMatrixView> views;
    for (int64_t c = 0; c < num_candidates(); ++c) {
      views.push_back(states.view().Rows(c * chunk.size, chunk.size));
    }
    return AddDivergences(chunk, head, heads, views);
  }

  // Runs the layer itself from its clean input, once a candidate, into `states`.
  absl::Status OpenCandidates(const TokenChunk& chunk, Matrix& states) const {
    LWQ_ASSIGN_OR_RETURN(const LayerWeights clean, decoder_.LoadLayer(layer()));
    LWQ_ASSIGN_OR_RETURN(const PreparedBatch one, decoder_.PrepareBatch(Repeat(chunk, 1)));
    for (int64_t c = 0; c < num_candidates(); ++c) {
      const Candidate& candidate = candidates_[static_cast<size_t>(c)];
      const MatrixView state = states.view().Rows(c * chunk.size, chunk.size);
      for (int64_t r = 0; r < chunk.size; ++r) {
        std::copy_n(request_.layer_input.Row(chunk.begin + r), state.cols, state.Row(r));
      }
      LWQ_ASSIGN_OR_RETURN(const LayerWeights layer, Exchange(clean, candidate));
      HostStates store(decoder_.device(), state);
      LWQ_RETURN_IF_ERROR(decoder_.RunLayer(layer, one, store));
    }
    return absl::OkStatus();
  }

  absl::Status RunHeadChunk(const TokenChunk& chunk) {
    LWQ_ASSIGN_OR_RETURN(const HeadWeights head, decoder_.LoadHead());
    const ConstMatrixView states = request_.source_output.Rows(chunk.begin, chunk.size);
    for (int64_t c = 0; c < num_candidates(); ++c) {  // one at a time: heads are large
      LWQ_RETURN_IF_ERROR(Report(static_cast<int>(c), static_cast<int>(num_candidates())));
      const Candidate& candidate = candidates_[static_cast<size_t>(c)];
      const AllocationUnit& unit = request_.units[candidate.unit];
      if (unit.linears.size() != 1 || unit.linears[0].module != spec_.head.linear().shape.module) {
        return absl::InvalidArgumentError(absl::StrCat(unit.name, " is not the head"));
      }
      HeadWeights exchanged = head;
      LWQ_ASSIGN_OR_RETURN(exchanged.projection, Replacement(candidate, unit.linears[0]));
      std::vector<double> kl(static_cast<size_t>(chunk.size));
      LWQ_RETURN_IF_ERROR(
          HeadKl(decoder_, head, states, {&exchanged}, {states}, {absl::MakeSpan(kl)}));
      AddTo(candidate, kl);
    }
    return absl::OkStatus();
  }

  // The whole model over what each candidate looks up, with its head where that is the same weight.
  absl::Status RunEmbeddingChunk(const TokenChunk& chunk) {
    LWQ_ASSIGN_OR_RETURN(const HeadWeights source_head, decoder_.LoadHead());
    LWQ_ASSIGN_OR_RETURN(const PreparedBatch one, decoder_.PrepareBatch(Repeat(chunk, 1)));
    const int steps = static_cast<int>(num_candidates()) * spec_.num_layers();
    for (int64_t c = 0; c < num_candidates(); ++c) {  // one at a time: tables are large
      const Candidate& candidate = candidates_[static_cast<size_t>(c)];
      HeadWeights head = source_head;
      Matrix states(chunk.size, spec_.hidden_size);
      LWQ_RETURN_IF_ERROR(LookUp(candidate, chunk, states, head));
      HostStates store(decoder_.device(), states.view());
      for (int layer = 0; layer < spec_.num_layers(); ++layer) {
        LWQ_RETURN_IF_ERROR(Report(static_cast<int>(c) * spec_.num_layers() + layer, steps));
        LWQ_ASSIGN_OR_RETURN(const LayerWeights weights, decoder_.LoadLayer(layer));
        LWQ_RETURN_IF_ERROR(decoder_.RunLayer(weights, one, store));
      }
      std::vector<double> kl(static_cast<size_t>(chunk.size));
      LWQ_RETURN_IF_ERROR(HeadKl(decoder_, source_head,
                                 request_.source_output.Rows(chunk.begin, chunk.size), {&head},
                                 {states.view()}, {absl::MakeSpan(kl)}));
      AddTo(candidate, kl);
    }
    return absl::OkStatus();
  }

  // The rows of a candidate's table that the chunk's tokens stand for; `head` becomes the table
  // where it is tied.
  absl::Status LookUp(const Candidate& candidate, const TokenChunk& chunk, Matrix& states,
                      HeadWeights& head) const {
    const AllocationUnit& unit = request_.units[candidate.unit];
    LWQ_RETURN_IF_ERROR(SlotOf(spec_.embedding.layer, unit.linears[0]).status());
    Device* device = decoder_.device();
    LWQ_ASSIGN_OR_RETURN(const auto table, device->NewMatrix(spec_.vocab_size, spec_.hidden_size));
    LWQ_RETURN_IF_ERROR(
        request_.replacement(candidate.unit, unit.linears[0], candidate.format, table->view()));
    for (int64_t t = 0; t < chunk.size; ++t) {
      const int64_t token = request_.batch->tokens[static_cast<size_t>(chunk.begin + t)];
      const MatrixView state = states.view().Rows(t, 1);
      LWQ_RETURN_IF_ERROR(device->Download(table->Rows(token, 1), state));
      for (int64_t i = 0; i < state.cols; ++i) {
        state.data[i] *= static_cast<float>(spec_.embedding.scale);
      }
    }
    if (!spec_.head.tied) return absl::OkStatus();
    LWQ_ASSIGN_OR_RETURN(
        head.projection,
        decoder_.Prepare(spec_.vocab_size, spec_.hidden_size, [&](DeviceView<float> weight) {
          return device->Copy(table->view(), weight);
        }));
    return absl::OkStatus();
  }

  absl::Status AddDivergences(const TokenChunk& chunk, const HeadWeights& head,
                              const std::vector<const HeadWeights*>& heads,
                              const std::vector<ConstMatrixView>& states) {
    std::vector<std::vector<double>> kl(candidates_.size(),
                                        std::vector<double>(static_cast<size_t>(chunk.size)));
    std::vector<absl::Span<double>> spans;
    for (std::vector<double>& one : kl) spans.push_back(absl::MakeSpan(one));
    LWQ_RETURN_IF_ERROR(HeadKl(decoder_, head, request_.source_output.Rows(chunk.begin, chunk.size),
                               heads, states, spans));
    for (size_t c = 0; c < candidates_.size(); ++c) AddTo(candidates_[c], kl[c]);
    return absl::OkStatus();
  }

  void AddTo(const Candidate& candidate, const std::vector<double>& kl) {
    double& sum = sums_[candidate.unit][static_cast<size_t>(candidate.format)];
    for (double value : kl) sum += value;
  }

  const Decoder& decoder_;
  const DecoderSpec& spec_;
  const UnitCostRequest& request_;
  std::vector<std::vector<double>> sums_;
  std::vector<Candidate> candidates_;
  size_t chunk_ = 0;
  size_t num_chunks_ = 0;
};

}  // namespace

absl::StatusOr<UnitCosts> SwapKl(const UnitCostRequest& request) {
  return SwapKlRun(*request.source, request).Run();
}

absl::Status HeadKl(const Decoder& decoder, const HeadWeights& source_head, ConstMatrixView source,
                    absl::Span<const HeadWeights* const> heads,
                    absl::Span<const ConstMatrixView> candidates,
                    absl::Span<const absl::Span<double>> kl) {
  Device* device = decoder.device();
  const int64_t vocabulary = decoder.spec().vocab_size;
  const int64_t block =
      std::min({source.rows, kMaxHeadRows, std::max<int64_t>(1, kMaxLogits / vocabulary)});
  LWQ_ASSIGN_OR_RETURN(auto source_logits, device->NewMatrix(block, vocabulary));
  LWQ_ASSIGN_OR_RETURN(auto logits, device->NewMatrix(block, vocabulary));
  LWQ_ASSIGN_OR_RETURN(
      auto sums, device->NewBuffer<double>(static_cast<int64_t>(candidates.size()), source.rows));
  for (int64_t begin = 0; begin < source.rows; begin += block) {
    const int64_t rows = std::min(block, source.rows - begin);
    const DeviceView<float> p = source_logits->Rows(0, rows), q = logits->Rows(0, rows);
    LWQ_RETURN_IF_ERROR(decoder.Logits(source_head, source.Rows(begin, rows), p));
    LWQ_RETURN_IF_ERROR(device->LogSoftmax(p));
    for (size_t c = 0; c < candidates.size(); ++c) {
      LWQ_RETURN_IF_ERROR(decoder.Logits(*heads[c], candidates[c].Rows(begin, rows), q));
      LWQ_RETURN_IF_ERROR(device->LogSoftmax(q));
      const DeviceSpan<double> of_candidate = sums->view().Row(static_cast<int64_t>(c));
      LWQ_RETURN_IF_ERROR(device->KlDivergence(p, q, of_candidate.Part(begin, rows)));
    }
  }
  for (size_t c = 0; c < candidates.size(); ++c) {
    LWQ_RETURN_IF_ERROR(device->Download(sums->view().Row(static_cast<int64_t>(c)), kl[c]));
  }
  return absl::OkStatus();
}

}  // namespace lwq
