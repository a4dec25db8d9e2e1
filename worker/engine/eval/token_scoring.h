// What all evaluations are made of: a batch of tokens through the model, then the log-probability
// of chosen tokens after chosen rows.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/model/head_reading.h"
#include "worker/engine/tensor/mapped_matrix.h"

namespace lwq {

// Called with a fraction of the work; a non-OK answer (cancelled) ends the evaluation with it.
using EvalProgress = std::function<absl::Status(double fraction)>;

struct TokenScore {
  double log_probability = 0;  // natural logarithm, over the whole vocabulary
  bool is_greedy = false;      // no token is likelier (the first of equals counts)
};

struct EvalOptions {
  std::string scratch_directory;  // for hidden states; empty: TMPDIR
  EvalProgress progress;          // may be null
};

// Embeds and runs all layers: hidden states [tokens, hidden_size] in a scratch file.
absl::StatusOr<MappedMatrix> RunBatch(const Decoder& decoder, const TokenBatch& batch,
                                      const EvalOptions& options);

// Scores of `targets` (rows ascending, equal ones allowed) in their order. Errors: the decoder's;
// INVALID_ARGUMENT for a token outside the vocabulary.
absl::StatusOr<std::vector<TokenScore>> ScoreTargets(const Decoder& decoder,
                                                     const TokenBatch& batch,
                                                     absl::Span<const TokenTarget> targets,
                                                     const EvalOptions& options);

// Calls options.progress with begin + fraction * share.
EvalOptions SubProgress(const EvalOptions& options, double begin, double share);

}  // namespace lwq
