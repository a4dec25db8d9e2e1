#include "worker/engine/score/swap_kl.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/engine/model/head_reading.h"
#include "worker/engine/model/token_chunks.h"
#include "worker/engine/tensor/mapped_matrix.h"

namespace lwq {
namespace {

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
      return request_.replacement(candidate.unit, linear, candidate.format, 0, weight);
    });
  }

  ActivationRule RuleOf(const Candidate& candidate) const {
    return request_.rules.empty()
               ? ActivationRule::kNone
               : request_.rules[candidate.unit][static_cast<size_t>(candidate.format)];
  }

  // The layer with the candidate's unit exchanged.
  absl::StatusOr<LayerWeights> Exchange(const LayerWeights& clean,
                                        const Candidate& candidate) const {
    const LayerSpec& layer_spec = spec_.at(request_.place);
    LayerWeights layer = clean;
    std::map<size_t, const LinearShape*> of_experts;
    for (const LinearShape& linear : request_.units[candidate.unit].linears) {
      LWQ_ASSIGN_OR_RETURN(const size_t slot, SlotOf(layer_spec, linear));
      layer.rules[slot] = RuleOf(candidate);
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
    // In a file: there are many, and a chunk may be one long sequence.
    LWQ_ASSIGN_OR_RETURN(MappedMatrix states, NewStates(num_candidates() * chunk.size));
    LWQ_RETURN_IF_ERROR(OpenCandidates(chunk, states.view()));
    LWQ_RETURN_IF_ERROR(Report(1, steps));
    LWQ_ASSIGN_OR_RETURN(const PreparedBatch all,
                         decoder_.PrepareBatch(Repeat(chunk, num_candidates())));
    LWQ_ASSIGN_OR_RETURN(const auto store, decoder_.OpenStates(states.view()));
    for (int layer = swapped + 1; layer < spec_.num_layers(); ++layer) {
      LWQ_ASSIGN_OR_RETURN(const LayerWeights weights, decoder_.LoadLayer(layer));
      LWQ_RETURN_IF_ERROR(decoder_.RunLayer(weights, all, *store));
      LWQ_RETURN_IF_ERROR(Report(layer - swapped + 1, steps));
    }
    LWQ_RETURN_IF_ERROR(store->Flush());
    HeadPass pass;
    pass.sides.push_back({&decoder_, &source_head_, SourceOutput(chunk)});
    for (int64_t c = 0; c < num_candidates(); ++c) {
      const ConstMatrixView state = states.view().Rows(c * chunk.size, chunk.size);
      pass.sides.push_back({&decoder_, &source_head_, state});
    }
    LWQ_ASSIGN_OR_RETURN(const HeadReading reading, ReadHead(pass));
    for (size_t c = 0; c < candidates_.size(); ++c) AddTo(candidates_[c], reading.kl[c]);
    return absl::OkStatus();
  }

  absl::StatusOr<MappedMatrix> NewStates(int64_t rows) const {
    // The file is unlinked at once, so the directory may go as soon as it is made.
    LWQ_ASSIGN_OR_RETURN(const TempDirectory directory,
                         TempDirectory::Create(request_.scratch_directory));
    return MappedMatrix::Create(directory.path(), rows, spec_.hidden_size);
  }

  // Runs the layer itself from its clean input, once a candidate, into `states`.
  absl::Status OpenCandidates(const TokenChunk& chunk, MatrixView states) const {
    LWQ_ASSIGN_OR_RETURN(const LayerWeights clean, decoder_.LoadLayer(layer()));
    LWQ_ASSIGN_OR_RETURN(const PreparedBatch one, decoder_.PrepareBatch(Repeat(chunk, 1)));
    for (int64_t c = 0; c < num_candidates(); ++c) {
      const Candidate& candidate = candidates_[static_cast<size_t>(c)];
      const MatrixView state = states.Rows(c * chunk.size, chunk.size);
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
    for (int64_t c = 0; c < num_candidates(); ++c) {
      LWQ_RETURN_IF_ERROR(Report(static_cast<int>(c), static_cast<int>(num_candidates())));
      const Candidate& candidate = candidates_[static_cast<size_t>(c)];
      const AllocationUnit& unit = request_.units[candidate.unit];
      if (unit.linears.size() != 1 || unit.linears[0].module != spec_.head.linear().shape.module) {
        return absl::InvalidArgumentError(absl::StrCat(unit.name, " is not the head"));
      }
      LWQ_RETURN_IF_ERROR(AddDivergence(candidate, chunk, RowsOf(candidate), SourceOutput(chunk)));
    }
    return absl::OkStatus();
  }

  // The whole model over what each candidate looks up, with its head where that is the same weight.
  absl::Status RunEmbeddingChunk(const TokenChunk& chunk) {
    LWQ_ASSIGN_OR_RETURN(const PreparedBatch one, decoder_.PrepareBatch(Repeat(chunk, 1)));
    const int steps = static_cast<int>(num_candidates()) * spec_.num_layers();
    for (int64_t c = 0; c < num_candidates(); ++c) {
      const Candidate& candidate = candidates_[static_cast<size_t>(c)];
      LWQ_ASSIGN_OR_RETURN(MappedMatrix states, NewStates(chunk.size));
      LWQ_RETURN_IF_ERROR(LookUp(candidate, chunk, states.view()));
      LWQ_ASSIGN_OR_RETURN(const auto store, decoder_.OpenStates(states.view()));
      for (int layer = 0; layer < spec_.num_layers(); ++layer) {
        LWQ_RETURN_IF_ERROR(Report(static_cast<int>(c) * spec_.num_layers() + layer, steps));
        LWQ_ASSIGN_OR_RETURN(const LayerWeights weights, decoder_.LoadLayer(layer));
        LWQ_RETURN_IF_ERROR(decoder_.RunLayer(weights, one, *store));
      }
      LWQ_RETURN_IF_ERROR(store->Flush());
      const HeadRows table = RowsOf(candidate);
      LWQ_RETURN_IF_ERROR(
          AddDivergence(candidate, chunk, spec_.head.tied ? table : source_head_, states.view()));
    }
    return absl::OkStatus();
  }

  // The rows of a candidate's table that the chunk's tokens stand for.
  absl::Status LookUp(const Candidate& candidate, const TokenChunk& chunk,
                      MatrixView states) const {
    const AllocationUnit& unit = request_.units[candidate.unit];
    LWQ_RETURN_IF_ERROR(SlotOf(spec_.embedding.layer, unit.linears[0]).status());
    Device* device = decoder_.device();
    LWQ_ASSIGN_OR_RETURN(const auto row, device->NewMatrix(1, spec_.hidden_size));
    for (int64_t t = 0; t < chunk.size; ++t) {
      const int64_t token = request_.batch->tokens[static_cast<size_t>(chunk.begin + t)];
      LWQ_RETURN_IF_ERROR(request_.replacement(candidate.unit, unit.linears[0], candidate.format,
                                               token, row->view()));
      const MatrixView state = states.Rows(t, 1);
      LWQ_RETURN_IF_ERROR(device->Download(row->view(), state));
      for (int64_t i = 0; i < state.cols; ++i) {
        state.data[i] *= static_cast<float>(spec_.embedding.scale);
      }
    }
    return absl::OkStatus();
  }

  ConstMatrixView SourceOutput(const TokenChunk& chunk) const {
    return request_.source_output.Rows(chunk.begin, chunk.size);
  }

  // The candidate's only linear, as a head.
  HeadRows RowsOf(const Candidate& candidate) const {
    return [this, candidate](int64_t first, DeviceView<float> out) {
      return request_.replacement(candidate.unit, request_.units[candidate.unit].linears[0],
                                  candidate.format, first, out);
    };
  }

  // Of one candidate's head and final hidden states.
  absl::Status AddDivergence(const Candidate& candidate, const TokenChunk& chunk,
                             const HeadRows& head, ConstMatrixView states) {
    HeadPass pass;
    pass.sides = {{&decoder_, &source_head_, SourceOutput(chunk)}, {&decoder_, &head, states}};
    LWQ_ASSIGN_OR_RETURN(const HeadReading reading, ReadHead(pass));
    AddTo(candidate, reading.kl[0]);
    return absl::OkStatus();
  }

  void AddTo(const Candidate& candidate, const std::vector<double>& kl) {
    double& sum = sums_[candidate.unit][static_cast<size_t>(candidate.format)];
    for (double value : kl) sum += value;
  }

  const Decoder& decoder_;
  const DecoderSpec& spec_;
  const UnitCostRequest& request_;
  const HeadRows source_head_ = HeadOf(decoder_);
  std::vector<std::vector<double>> sums_;
  std::vector<Candidate> candidates_;
  size_t chunk_ = 0;
  size_t num_chunks_ = 0;
};

}  // namespace

absl::StatusOr<UnitCosts> SwapKl(const UnitCostRequest& request) {
  return SwapKlRun(*request.source, request).Run();
}

}  // namespace lwq
