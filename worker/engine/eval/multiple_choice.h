// Multiple choice as lm-evaluation-harness counts it: which continuation is likeliest (acc), and
// likeliest a character (acc_norm). Contexts that several options share are computed once.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/eval/dataset.h"
#include "worker/engine/eval/request_encoding.h"
#include "worker/engine/eval/token_scoring.h"

namespace lwq {

struct ChoiceItemResult {
  std::vector<double> log_likelihoods;  // of the options, nats
  std::vector<bool> is_greedy;
  int gold = 0;
  int predicted = 0;       // the first of equals
  int predicted_norm = 0;  // by log-likelihood / norm_length
};

struct MultipleChoiceResult {
  int64_t num_items = 0;
  double acc = 0;
  double acc_stderr = 0;  // sqrt(variance (n - 1) / n); 0 for one item
  double acc_norm = 0;
  double acc_norm_stderr = 0;
  std::vector<ChoiceItemResult> items;  // in data order
};

// Contexts longer than the model's max_positions lose their beginning. Errors: the tokenizer's and
// the decoder's; INVALID_ARGUMENT naming the item for an empty continuation or one that is longer
// than max_positions.
absl::StatusOr<MultipleChoiceResult> EvaluateMultipleChoice(
    const Decoder& decoder, const RequestEncoder& encoder,
    const std::vector<MultipleChoiceItem>& items, const EvalOptions& options);

// Predictions and figures from the log-likelihoods in `items`; `norm_lengths` as in the data set.
MultipleChoiceResult SummarizeChoices(std::vector<ChoiceItemResult> items,
                                      const std::vector<MultipleChoiceItem>& data);

}  // namespace lwq
