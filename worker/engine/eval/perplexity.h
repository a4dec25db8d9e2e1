// Perplexity of texts in lm-evaluation-harness's rolling form and in disjoint windows, and the KL
// divergence of a candidate from its source on the same windows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/eval/request_encoding.h"
#include "worker/engine/eval/token_scoring.h"

namespace lwq {

struct RollingResult {
  std::vector<double> log_likelihoods;  // of the documents, nats
  int64_t num_tokens = 0;               // predicted
  double nll = 0;                       // total, nats
  // Over words (pieces between runs of whitespace, empty ones at the ends counted) and bytes.
  double word_perplexity = 0;
  double byte_perplexity = 0;
  double bits_per_byte = 0;
};

// Windows of the model's max_positions.
absl::StatusOr<RollingResult> RollingPerplexity(const Decoder& decoder,
                                                const RequestEncoder& encoder,
                                                const std::vector<std::string>& documents,
                                                const EvalOptions& options);

// Pieces of `text` cut at runs of Unicode whitespace, as the harness counts words.
int64_t CountWords(absl::string_view text);
// nll, token count and the three figures from log-likelihoods of `documents`.
RollingResult SummarizeRolling(std::vector<double> log_likelihoods, int64_t num_tokens,
                               const std::vector<std::string>& documents);

struct DivergenceResult {
  double mean = 0;  // nats
  double median = 0;
  double p99 = 0;
  double standard_error = 0;  // of the mean, positions taken as independent
  double top1_agreement = 0;
  int64_t num_tokens = 0;
};

struct WindowResult {
  int64_t num_tokens = 0;  // predicted
  double token_perplexity = 0;
  int64_t sequence_length = 0;
  std::optional<DivergenceResult> divergence;
};

// In each window tokens 2 to last are predicted; the perplexity is exp of the mean over windows of
// their mean. With `source`, the KL divergence of `decoder` from it over the same predictions, both
// models run once. "VOCABULARY_MISMATCH" when the two vocabularies differ in size.
absl::StatusOr<WindowResult> WindowPerplexity(const Decoder& decoder, const Decoder* source,
                                              const TokenBatch& windows,
                                              const EvalOptions& options);

// Mean, median, 99th percentile (linear between ranks) and standard error of `kl`.
DivergenceResult SummarizeDivergence(std::vector<double> kl, int64_t num_agreeing);

}  // namespace lwq
