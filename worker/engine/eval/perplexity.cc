// See perplexity.h.
#include "worker/engine/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/eval/hellaswag_text.h"
#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

constexpr int64_t kMaxPassTokens = 65536;

// A chosen token's row in the batch and the document that its score belongs to.
struct RollingPass {
  TokenBatch batch;
  std::vector<TokenTarget> targets;
  std::vector<size_t> documents;
};

absl::Status RunRollingPass(const Decoder& decoder, const EvalOptions& options, RollingPass* pass,
                            std::vector<double>* log_likelihoods) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<TokenScore> scores,
                       ScoreTargets(decoder, pass->batch, pass->targets, options));
  for (size_t i = 0; i < scores.size(); ++i) {
    (*log_likelihoods)[pass->documents[i]] += scores[i].log_probability;
  }
  *pass = RollingPass();
  return absl::OkStatus();
}

void AddWindow(const RollingWindow& window, size_t document, RollingPass* pass) {
  pass->batch.Add(window.input);
  const int64_t first = pass->batch.num_tokens() - static_cast<int64_t>(window.predicted.size());
  for (size_t i = 0; i < window.predicted.size(); ++i) {
    pass->targets.push_back({first + static_cast<int64_t>(i), window.predicted[i]});
    pass->documents.push_back(document);
  }
}

// The predictions of windows: every token but the last of each, and what follows it.
struct Predictions {
  std::vector<int64_t> rows;
  std::vector<TokenTarget> next;  // by place in `rows`
};

Predictions PredictionsOf(const TokenBatch& windows) {
  Predictions predictions;
  for (const Segment& window : windows.segments) {
    for (int64_t row = window.begin; row + 1 < window.begin + window.size; ++row) {
      predictions.next.push_back({static_cast<int64_t>(predictions.rows.size()),
                                  windows.tokens[static_cast<size_t>(row + 1)]});
      predictions.rows.push_back(row);
    }
  }
  return predictions;
}

// exp of the mean over windows of their mean negative log-likelihood.
double PerplexityOf(const TokenBatch& windows, const std::vector<double>& log_probability) {
  double sum = 0;
  size_t at = 0;
  for (const Segment& window : windows.segments) {
    const int64_t predictions = std::max<int64_t>(window.size - 1, 0);
    double nll = 0;
    for (int64_t i = 0; i < predictions; ++i) nll -= log_probability[at++];
    sum += nll / static_cast<double>(std::max<int64_t>(predictions, 1));
  }
  return std::exp(sum / static_cast<double>(windows.segments.size()));
}

}  // namespace

int64_t CountWords(absl::string_view text) {
  int64_t words = 1;
  bool in_space = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = NextCodePoint(text, &at);
    const bool space = IsWhitespace(c) || (c >= 0x1C && c <= 0x1F);
    words += space && !in_space;
    in_space = space;
  }
  return words;
}

RollingResult SummarizeRolling(std::vector<double> log_likelihoods, int64_t num_tokens,
                               const std::vector<std::string>& documents) {
  RollingResult result;
  result.num_tokens = num_tokens;
  double words = 0, bytes = 0;
  for (size_t i = 0; i < documents.size(); ++i) {
    result.nll -= log_likelihoods[i];
    words += static_cast<double>(CountWords(documents[i]));
    bytes += static_cast<double>(documents[i].size());
  }
  result.word_perplexity = std::exp(result.nll / words);
  result.byte_perplexity = std::exp(result.nll / bytes);
  result.bits_per_byte = result.nll / bytes / std::log(2.0);
  result.log_likelihoods = std::move(log_likelihoods);
  return result;
}

absl::StatusOr<RollingResult> RollingPerplexity(const Decoder& decoder,
                                                const RequestEncoder& encoder,
                                                const std::vector<std::string>& documents,
                                                const EvalOptions& options) {
  std::vector<double> log_likelihoods(documents.size(), 0.0);
  std::vector<std::pair<size_t, RollingWindow>> windows;
  for (size_t i = 0; i < documents.size(); ++i) {
    LWQ_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, encoder.EncodeText(documents[i]));
    for (RollingWindow& window :
         RollingWindows(tokens, encoder.prefix_token(), decoder.spec().max_positions)) {
      windows.emplace_back(i, std::move(window));
    }
  }
  if (windows.empty()) return Failure(reasons::kTextTooShort, "the text has no tokens");
  RollingPass pass;
  int64_t num_tokens = 0;
  size_t first_of_pass = 0;
  for (size_t i = 0; i < windows.size(); ++i) {
    num_tokens += static_cast<int64_t>(windows[i].second.predicted.size());
    AddWindow(windows[i].second, windows[i].first, &pass);
    if (pass.batch.num_tokens() < kMaxPassTokens && i + 1 < windows.size()) continue;
    const double total = static_cast<double>(windows.size());
    LWQ_RETURN_IF_ERROR(
        RunRollingPass(decoder,
                       SubProgress(options, static_cast<double>(first_of_pass) / total,
                                   static_cast<double>(i + 1 - first_of_pass) / total),
                       &pass, &log_likelihoods));
    first_of_pass = i + 1;
  }
  return SummarizeRolling(std::move(log_likelihoods), num_tokens, documents);
}

DivergenceResult SummarizeDivergence(std::vector<double> kl, int64_t num_agreeing) {
  DivergenceResult result;
  result.num_tokens = static_cast<int64_t>(kl.size());
  if (kl.empty()) return result;
  const double n = static_cast<double>(kl.size());
  double sum = 0, squares = 0;
  for (const double value : kl) sum += value;
  result.mean = sum / n;
  for (const double value : kl) squares += (value - result.mean) * (value - result.mean);
  if (kl.size() > 1) result.standard_error = std::sqrt(squares / (n - 1) / n);
  std::sort(kl.begin(), kl.end());
  const auto quantile = [&kl](double q) {
    const double rank = q * static_cast<double>(kl.size() - 1);
    const auto low = static_cast<size_t>(rank);
    const size_t high = std::min(low + 1, kl.size() - 1);
    return kl[low] + (rank - static_cast<double>(low)) * (kl[high] - kl[low]);
  };
  result.median = quantile(0.5);
  result.p99 = quantile(0.99);
  result.top1_agreement = static_cast<double>(num_agreeing) / n;
  return result;
}

absl::StatusOr<WindowResult> WindowPerplexity(const Decoder& decoder, const Decoder* source,
                                              const TokenBatch& windows,
                                              const EvalOptions& options) {
  const int64_t vocab_size = decoder.spec().vocab_size;
  if (source != nullptr && source->spec().vocab_size != vocab_size) {
    return Failure(reasons::kVocabularyMismatch,
                   absl::StrCat("the model has ", vocab_size, " tokens, its source ",
                                source->spec().vocab_size));
  }
  const double share = source != nullptr ? 0.4 : 0.8;
  LWQ_ASSIGN_OR_RETURN(const MappedMatrix hidden,
                       RunBatch(decoder, windows, SubProgress(options, 0, share)));
  const HeadRows head = HeadOf(decoder);
  const Predictions predictions = PredictionsOf(windows);
  HeadPass pass;
  std::optional<MappedMatrix> source_hidden;
  HeadRows source_head;
  if (source != nullptr) {
    LWQ_ASSIGN_OR_RETURN(MappedMatrix states,
                         RunBatch(*source, windows, SubProgress(options, share, share)));
    source_hidden.emplace(std::move(states));
    source_head = HeadOf(*source);
    pass.sides.push_back({source, &source_head, std::as_const(*source_hidden).view()});
  }
  pass.sides.push_back({&decoder, &head, hidden.view()});
  pass.rows = predictions.rows;
  pass.progress = SubProgress(options, 0.8, 0.2).progress;
  LWQ_ASSIGN_OR_RETURN(HeadReading reading, ReadHead(pass, predictions.next));
  WindowResult result;
  result.num_tokens = static_cast<int64_t>(predictions.rows.size());
  for (const Segment& window : windows.segments) {
    result.sequence_length = std::max(result.sequence_length, window.size);
  }
  result.token_perplexity = PerplexityOf(windows, reading.log_probability);
  if (source != nullptr) {
    int64_t agreeing = 0;
    for (size_t r = 0; r < reading.best[0].size(); ++r) {
      agreeing += reading.best[0][r] == reading.best[1][r];
    }
    result.divergence = SummarizeDivergence(std::move(reading.kl[0]), agreeing);
  }
  return result;
}

}  // namespace lwq
