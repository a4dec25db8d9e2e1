// Texts to tokens in lm-evaluation-harness's way: BOS, prefix token, context and continuation.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/tokenizer/tokenizer.h"

namespace lwq {

// Whether BOS comes first: what the tokenizer does by default (the harness from 0.4.9.2), always,
// or never (the harness before).
enum class BosMode { kTokenizer, kAlways, kNever };
// "tokenizer" (or empty), "always", "never"; INVALID_ARGUMENT "BOS_UNKNOWN" otherwise.
absl::StatusOr<BosMode> ParseBosMode(absl::string_view name);
absl::string_view NameOf(BosMode mode);

// `text` without what is behind `max_bytes`, cut at the end of a line in its last half, else
// between two characters.
absl::string_view TextBeginning(absl::string_view text, size_t max_bytes);

struct EncodedPair {
  std::vector<int32_t> context;       // never empty
  std::vector<int32_t> continuation;  // never empty
};

// Encodes the texts of one evaluation. Thread-safe as the tokenizer is.
class RequestEncoder {
 public:
  // `tokenizer` must outlive it. FAILED_PRECONDITION "BOS_MISSING" when `mode` is kAlways and the
  // tokenizer has no BOS, or when it has neither BOS nor EOS.
  static absl::StatusOr<RequestEncoder> Create(const Tokenizer* tokenizer, BosMode mode);

  // A text that begins with the prefix token's text gets no special tokens under kTokenizer.
  absl::StatusOr<std::vector<int32_t>> EncodeText(absl::string_view text) const;
  // The first `max_tokens` of them, or all there are. Of a long text only a beginning is encoded:
  // up to the end of a line far enough behind them that what is cut off does not reach back to
  // them.
  absl::StatusOr<std::vector<int32_t>> EncodeBeginning(absl::string_view text,
                                                       int64_t max_tokens) const;
  // Trailing whitespace of the context moves to the continuation, which is the tail of the tokens
  // of both. "EMPTY_CONTINUATION" when that tail is empty.
  absl::StatusOr<EncodedPair> EncodePair(absl::string_view context,
                                         absl::string_view continuation) const;
  // What EncodeText puts in front of a text: BOS, or nothing.
  std::optional<int32_t> bos() const;
  // BOS, else EOS.
  int32_t prefix_token() const { return prefix_token_; }

 private:
  RequestEncoder(const Tokenizer* tokenizer, BosMode mode, int32_t prefix_token);
  const Tokenizer* tokenizer_;
  BosMode mode_;
  int32_t prefix_token_;
  std::string prefix_text_;
};

// One window of a rolling log-likelihood: `input` is fed, and the last predicted.size() positions
// predict `predicted`.
struct RollingWindow {
  std::vector<int32_t> input;
  std::vector<int32_t> predicted;
};

// Every token is predicted once; windows see `max_length` tokens, the first token of the text after
// `prefix_token`, and the last window reaches back to be full.
std::vector<RollingWindow> RollingWindows(const std::vector<int32_t>& tokens, int32_t prefix_token,
                                          int64_t max_length);

}  // namespace lwq
