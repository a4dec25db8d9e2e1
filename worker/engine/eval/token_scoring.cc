// See token_scoring.h.
#include "worker/engine/eval/token_scoring.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// Share of the work that the layers are; the head is the rest.
constexpr double kLayersShare = 0.8;

absl::Status Report(const EvalOptions& options, double fraction) {
  return options.progress ? options.progress(fraction) : absl::OkStatus();
}

absl::Status CheckTargets(absl::Span<const TokenTarget> targets, int64_t num_rows,
                          int64_t vocab_size) {
  for (size_t i = 0; i < targets.size(); ++i) {
    const TokenTarget& t = targets[i];
    if (t.token < 0 || t.token >= vocab_size) {
      return Failure(reasons::kTokenOutOfRange,
                     absl::StrCat("token ", t.token, " is outside the model's vocabulary of ",
                                  vocab_size, "; does the tokenizer belong to the model?"));
    }
    if (t.row < 0 || t.row >= num_rows || (i > 0 && t.row < targets[i - 1].row)) {
      return absl::InternalError("targets of an evaluation are out of order");
    }
  }
  return absl::OkStatus();
}

}  // namespace

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
  // Each row once, and the targets by their rows' places among those.
  std::vector<int64_t> rows;
  std::vector<TokenTarget> by_place;
  for (const TokenTarget& target : targets) {
    if (rows.empty() || rows.back() != target.row) rows.push_back(target.row);
    by_place.push_back({static_cast<int64_t>(rows.size()) - 1, target.token});
  }
  if (rows.empty()) return std::vector<TokenScore>();
  const HeadRows head = HeadOf(decoder);
  HeadPass pass;
  pass.sides = {{&decoder, &head, hidden.view()}};
  pass.rows = rows;
  pass.progress = SubProgress(options, kLayersShare, 1 - kLayersShare).progress;
  LWQ_ASSIGN_OR_RETURN(const HeadReading reading, ReadHead(pass, by_place));
  std::vector<TokenScore> scores;
  scores.reserve(targets.size());
  for (size_t i = 0; i < by_place.size(); ++i) {
    const bool is_greedy =
        reading.best[0][static_cast<size_t>(by_place[i].row)] == by_place[i].token;
    scores.push_back({reading.log_probability[i], is_greedy});
  }
  return scores;
}

}  // namespace lwq
