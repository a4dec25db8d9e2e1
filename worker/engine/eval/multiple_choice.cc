// See multiple_choice.h.
#include "worker/engine/eval/multiple_choice.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/eval/choice_pass.h"

namespace lwq {
namespace {

// Tokens of one pass through the model: hidden states take 4 bytes a token and hidden unit.
constexpr int64_t kMaxPassTokens = 65536;

absl::Status RunPass(const Decoder& decoder, const EvalOptions& options, const ChoicePass& pass,
                     std::vector<ChoiceItemResult>* results) {
  const std::vector<TargetOwner> owners = pass.Owners();
  std::vector<TokenTarget> targets;
  targets.reserve(owners.size());
  for (const TargetOwner& owner : owners) targets.push_back(owner.target);
  LWQ_ASSIGN_OR_RETURN(const std::vector<TokenScore> scores,
                       ScoreTargets(decoder, pass.batch(), targets, options));
  for (size_t i = 0; i < scores.size(); ++i) {
    ChoiceItemResult& result = (*results)[owners[i].item];
    result.log_likelihoods[owners[i].option] += scores[i].log_probability;
    if (!scores[i].is_greedy) result.is_greedy[owners[i].option] = false;
  }
  return absl::OkStatus();
}

absl::StatusOr<EncodedPair> EncodeOption(const RequestEncoder& encoder, const ChoiceOption& option,
                                         int64_t max_length, size_t item) {
  LWQ_ASSIGN_OR_ANNOTATE(EncodedPair pair, encoder.EncodePair(option.context, option.continuation),
                         "item ", item + 1);
  if (static_cast<int64_t>(pair.continuation.size()) > max_length) {
    return Failure(
        reasons::kContinuationTooLong,
        absl::StrCat("item ", item + 1, ": a continuation has ", pair.continuation.size(),
                     " tokens, the model ", max_length, " positions"));
  }
  return pair;
}

// The first of equals; a length of 0 gives minus infinity.
int Best(const std::vector<double>& values) {
  return static_cast<int>(std::max_element(values.begin(), values.end()) - values.begin());
}

// Sample standard error of the mean of zeros and ones.
double StandardError(double mean, int64_t n) {
  if (n < 2) return 0;
  return std::sqrt(mean * (1 - mean) / static_cast<double>(n - 1));
}

}  // namespace

MultipleChoiceResult SummarizeChoices(std::vector<ChoiceItemResult> items,
                                      const std::vector<MultipleChoiceItem>& data) {
  MultipleChoiceResult result;
  result.num_items = static_cast<int64_t>(items.size());
  int64_t right = 0, right_norm = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    ChoiceItemResult& item = items[i];
    std::vector<double> normed;
    for (size_t j = 0; j < item.log_likelihoods.size(); ++j) {
      const int64_t length = data[i].options[j].norm_length;
      normed.push_back(length == 0 ? -INFINITY
                                   : item.log_likelihoods[j] / static_cast<double>(length));
    }
    item.gold = data[i].gold;
    item.predicted = Best(item.log_likelihoods);
    item.predicted_norm = Best(normed);
    right += item.predicted == item.gold;
    right_norm += item.predicted_norm == item.gold;
  }
  if (!items.empty()) {
    const double n = static_cast<double>(items.size());
    result.acc = static_cast<double>(right) / n;
    result.acc_norm = static_cast<double>(right_norm) / n;
    result.acc_stderr = StandardError(result.acc, result.num_items);
    result.acc_norm_stderr = StandardError(result.acc_norm, result.num_items);
  }
  result.items = std::move(items);
  return result;
}

absl::StatusOr<MultipleChoiceResult> EvaluateMultipleChoice(
    const Decoder& decoder, const RequestEncoder& encoder,
    const std::vector<MultipleChoiceItem>& items, const EvalOptions& options) {
  const int64_t max_length = decoder.spec().max_positions;
  std::vector<ChoiceItemResult> results(items.size());
  auto pass = std::make_unique<ChoicePass>(max_length, decoder.chunk_tokens());
  size_t first_of_pass = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    results[i].log_likelihoods.assign(items[i].options.size(), 0.0);
    results[i].is_greedy.assign(items[i].options.size(), true);
    for (size_t j = 0; j < items[i].options.size(); ++j) {
      LWQ_ASSIGN_OR_RETURN(const EncodedPair pair,
                           EncodeOption(encoder, items[i].options[j], max_length, i));
      pass->Add(pair, i, j);
    }
    if (pass->batch().num_tokens() < kMaxPassTokens && i + 1 < items.size()) continue;
    const double total = static_cast<double>(items.size());
    LWQ_RETURN_IF_ERROR(RunPass(decoder,
                                SubProgress(options, static_cast<double>(first_of_pass) / total,
                                            static_cast<double>(i + 1 - first_of_pass) / total),
                                *pass, &results));
    pass = std::make_unique<ChoicePass>(max_length, decoder.chunk_tokens());
    first_of_pass = i + 1;
  }
  return SummarizeChoices(std::move(results), items);
}

}  // namespace lwq
