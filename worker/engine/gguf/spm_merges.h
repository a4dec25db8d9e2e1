// Merges of a BPE by the scores that SentencePiece has for its pieces.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

struct ScoredPiece {
  absl::string_view text;  // UTF-8
  float score = 0;
  bool made = true;  // by merging; false for control tokens, bytes and what is unknown
};

// Every way of cutting a piece that is made into two of `pieces`, best score first; of one score
// the longer left part first, then the longer right part, then by the ids of the parts. It is the
// order that transformers gives them. DATA_LOSS "TOKENIZER_INVALID" for more than 2^21 of them: no
// model's vocabulary has so many, and pieces of one letter have as many as the square of their
// number.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> MergesByScore(
    const std::vector<ScoredPiece>& pieces);

}  // namespace lwq
