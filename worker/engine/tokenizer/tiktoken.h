// qwen.tiktoken, the vocabulary that the first Qwen ships: a line for each token, base64 of its
// bytes and its rank, which is its id; no list of merges. What QWenTokenizer does around it is as
// tokenizer.json says it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

inline constexpr char kTiktokenFile[] = "qwen.tiktoken";
// What ends a text: the first of the special tokens, which follow the last rank.
inline constexpr char kTiktokenEnd[] = "<|endoftext|>";

// A tokenizer.json that encodes every text to the same ids. tiktoken joins whatever two neighbours
// make a token, the lowest rank first. A token's own bytes are joined in one order only, whatever
// stands around them, so that each has one pair that makes it in the end: that pair is its merge.
// INVALID_ARGUMENT "TOKENIZER_INVALID" names the line that is damaged, a byte that is no token,
// ranks that are not 0, 1, 2, ..., and a token of more than 1,024 bytes.
absl::StatusOr<std::string> TokenizerJsonOfTiktoken(absl::string_view ranks);

}  // namespace lwq
