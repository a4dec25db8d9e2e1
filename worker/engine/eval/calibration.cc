#include "worker/engine/eval/calibration.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {

std::vector<int64_t> SpreadOrder(int64_t n) {
  int bits = 0;
  while ((int64_t{1} << bits) < n) ++bits;
  std::vector<int64_t> order;
  order.reserve(n);
  for (int64_t i = 0; i < (int64_t{1} << bits); ++i) {
    int64_t reversed = 0;
    for (int b = 0; b < bits; ++b) reversed |= ((i >> b) & 1) << (bits - 1 - b);
    if (reversed < n) order.push_back(reversed);
  }
  return order;
}

absl::StatusOr<std::vector<std::vector<int32_t>>> SampleCalibration(
    const Tokenizer& tokenizer, const std::vector<std::string>& documents,
    const CalibrationOptions& options) {
  const bool with_bos = tokenizer.adds_bos() && tokenizer.bos_id() >= 0;
  const int64_t piece = options.sequence_length - (with_bos ? 1 : 0);
  if (piece < 1 || options.num_tokens < 1) {
    return Failure(
        reasons::kCalibrationInvalid,
        absl::StrCat("calibration of ", options.num_tokens, " tokens in sequences of ",
                     options.sequence_length, ": both must be positive, sequences at least 2"));
  }
  std::vector<int32_t> tokens;
  for (const std::string& document : documents) {
    LWQ_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer.Encode(document, false));
    tokens.insert(tokens.end(), ids.begin(), ids.end());
  }
  const int64_t available = static_cast<int64_t>(tokens.size()) / piece;
  if (available < 1) {
    return Failure(reasons::kCalibrationInvalid,
                   absl::StrCat("the calibration text has ", tokens.size(),
                                " tokens, one sequence needs ", piece));
  }
  const int64_t wanted =
      std::clamp<int64_t>(options.num_tokens / options.sequence_length, 1, available);
  std::vector<std::vector<int32_t>> sequences;
  const std::vector<int64_t> order = SpreadOrder(available);
  for (int64_t i = 0; i < wanted; ++i) {
    const auto begin = tokens.begin() + order[i] * piece;
    std::vector<int32_t> sequence;
    sequence.reserve(options.sequence_length);
    if (with_bos) sequence.push_back(tokenizer.bos_id());
    sequence.insert(sequence.end(), begin, begin + piece);
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

}  // namespace lwq
