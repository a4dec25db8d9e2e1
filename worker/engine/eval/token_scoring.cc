// See token_scoring.h.
#include "worker/engine/eval/token_scoring.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// Share of the work that the layers are; the head is the rest.
constexpr double kLayersShare = 0.8;
// About 64 MiB of logits.
constexpr int64_t kBlockElements = 16 << 20;

absl::Status Report(const EvalOptions& options, double fraction) {
  return options.progress ? options.progress(fraction) : absl::OkStatus();
}

// A block of targets whose rows are few enough, and the distinct rows.
struct Block {
  size_t begin = 0;
  size_t end = 0;
  std::vector<int64_t> rows;
};

std::vector<Block> CutBlocks(absl::Span<const TokenTarget> targets, size_t max_rows) {
  std::vector<Block> blocks;
  for (size_t i = 0; i < targets.size(); ++i) {
    const bool new_row = i == 0 || targets[i].row != targets[i - 1].row;
    if (blocks.empty() || (new_row && blocks.back().rows.size() >= max_rows)) {
      blocks.push_back({i, i, {}});
    }
    if (new_row) blocks.back().rows.push_back(targets[i].row);
    blocks.back().end = i + 1;
  }
  return blocks;
}

absl::Status CheckTargets(absl::Span<const TokenTarget> targets, int64_t num_rows,
                          int64_t vocab_size) {
  for (size_t i = 0; i < targets.size(); ++i) {
    const TokenTarget& t = targets[i];
    if (t.token < 0 || t.token >= vocab_size) {
      return InvalidFailure(
          "TOKEN_OUT_OF_RANGE",
          absl::StrCat("token ", t.token, " is outside the model's vocabulary of ", vocab_size,
                       "; does the tokenizer belong to the model?"));
    }
    if (t.row < 0 || t.row >= num_rows || (i > 0 && t.row < targets[i - 1].row)) {
      return absl::InternalError("targets of an evaluation are out of order");
    }
  }
  return absl::OkStatus();
}

}  // namespace

int64_t LogitBlockRows(int64_t vocab_size) {
  return std::clamp<int64_t>(kBlockElements / std::max<int64_t>(vocab_size, 1), 16, 1024);
}

EvalOptions SubProgress(const EvalOptions& options, double begin, double share) {
  EvalOptions sub = options;
  if (options.progress) {
    sub.progress = [progress = options.progress, begin, share](double fraction) {
      return progress(begin + share * fraction);
    };
  }
  return sub;
}

absl::StatusOr<MappedMatrix> RunBatch(const Decoder& decoder, const TokenBatch& batch,
                                      const EvalOptions& options) {
  // The file is unlinked at once, so the directory may go as soon as it is made.
  LWQ_ASSIGN_OR_RETURN(const TempDirectory directory,
                       TempDirectory::Create(options.scratch_directory));
  LWQ_ASSIGN_OR_RETURN(
      MappedMatrix hidden,
      MappedMatrix::Create(directory.path(), batch.num_tokens(), decoder.spec().hidden_size));
  LWQ_RETURN_IF_ERROR(RunAllLayers(decoder, batch, hidden.view(), [&](int layer) {
    return Report(options, static_cast<double>(layer) / decoder.spec().num_layers());
  }));
  return hidden;
}

absl::StatusOr<std::vector<TokenScore>> ScoreTargets(const Decoder& decoder,
                                                     const TokenBatch& batch,
                                                     absl::Span<const TokenTarget> targets,
                                                     const EvalOptions& options) {
  const DecoderSpec& spec = decoder.spec();
  LWQ_RETURN_IF_ERROR(CheckTargets(targets, batch.num_tokens(), spec.vocab_size));
  LWQ_ASSIGN_OR_RETURN(MappedMatrix hidden,
                       RunBatch(decoder, batch, SubProgress(options, 0, kLayersShare)));
  LWQ_ASSIGN_OR_RETURN(const HeadWeights head, decoder.LoadHead());
  const int64_t block_rows = LogitBlockRows(spec.vocab_size);
  LWQ_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceMatrix> logits,
                       decoder.device()->NewMatrix(block_rows, spec.vocab_size));
  Matrix inputs(block_rows, spec.hidden_size), log_probabilities(block_rows, spec.vocab_size);
  std::vector<TokenScore> scores;
  scores.reserve(targets.size());
  for (const Block& block : CutBlocks(targets, block_rows)) {
    LWQ_RETURN_IF_ERROR(
        Report(options, kLayersShare + (1 - kLayersShare) * static_cast<double>(block.begin) /
                                           static_cast<double>(targets.size())));
    const int64_t rows = static_cast<int64_t>(block.rows.size());
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(inputs.Row(r), hidden.view().Row(block.rows[r]),
                  static_cast<size_t>(spec.hidden_size) * sizeof(float));
    }
    const DeviceView<float> device_rows = logits->Rows(0, rows);
    LWQ_RETURN_IF_ERROR(decoder.Logits(head, inputs.view().Rows(0, rows), device_rows));
    LWQ_RETURN_IF_ERROR(decoder.device()->LogSoftmax(device_rows));
    LWQ_RETURN_IF_ERROR(
        decoder.device()->Download(device_rows, log_probabilities.view().Rows(0, rows)));
    int64_t r = -1;
    int64_t best = 0;
    for (size_t i = block.begin; i < block.end; ++i) {
      if (r < 0 || targets[i].row != block.rows[r]) {
        const float* row = log_probabilities.Row(++r);
        best = std::max_element(row, row + spec.vocab_size) - row;
      }
      scores.push_back({log_probabilities.Row(r)[targets[i].token], best == targets[i].token});
    }
  }
  return scores;
}

}  // namespace lwq
