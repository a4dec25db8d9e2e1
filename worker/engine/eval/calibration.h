// Which tokens calibration sees: a deterministic sample of a text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/tokenizer/tokenizer.h"

namespace lwq {

struct CalibrationOptions {
  int64_t num_tokens = 32768;     // rounded down to whole sequences, at least one
  int64_t sequence_length = 512;  // BOS included
};

// Cuts the tokens of `documents` (each encoded by itself, joined end to end) into pieces of
// sequence_length (one less where the tokenizer adds BOS, which then comes first in every sequence)
// and takes the first num_tokens / sequence_length of them in SpreadOrder. So every sample is spread
// over the whole text, and a smaller sample is the beginning of a larger one: the scorer's
// sequences come after those that the quantizer saw. A text too short for that many gives as many as it has.
// INVALID_ARGUMENT "CALIBRATION_INVALID" when it has not even one.
absl::StatusOr<std::vector<std::vector<int32_t>>> SampleCalibration(
    const Tokenizer& tokenizer, const std::vector<std::string>& documents,
    const CalibrationOptions& options);

// 0, n/2, n/4, 3n/4, ... (bit-reversed counting): a permutation of [0, n) whose every prefix is spread
// evenly.
std::vector<int64_t> SpreadOrder(int64_t n);

}  // namespace lwq
