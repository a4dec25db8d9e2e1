// What scores and evaluations take from the logits of a head pass: log-probabilities of chosen
// tokens, the likeliest token of each row, and the KL divergence of models from one of them. Sums
// are kept while the vocabulary goes by (head_pass.h), so no row of logits is ever whole.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/model/head_pass.h"

namespace lwq {

// Token `token` is to follow row `row`.
struct TokenTarget {
  int64_t row = 0;
  int32_t token = 0;
};

// Row r is the pass's r-th.
struct HeadReading {
  // [side][row]: the likeliest token, the first of equals.
  std::vector<std::vector<int32_t>> best;
  // [side - 1][row]: KL(first side || side), nats. The sums are F64, their terms F32, so that a
  // divergence of zero may come out as one of -1e-7.
  std::vector<std::vector<double>> kl;
  // By target: natural logarithm, over the whole vocabulary, by the last side.
  std::vector<double> log_probability;
};

// `targets` in any order. INVALID_ARGUMENT "TOKEN_OUT_OF_RANGE" for a token outside the vocabulary.
absl::StatusOr<HeadReading> ReadHead(const HeadPass& pass,
                                     absl::Span<const TokenTarget> targets = {});

}  // namespace lwq
