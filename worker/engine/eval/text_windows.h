// Which tokens of a dataset perplexity and KL divergence are measured on. Documents are handed over
// one by one, and no more of them is encoded or kept than is asked for, however large the dataset.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/eval/request_encoding.h"
#include "worker/engine/model/decoder.h"

namespace lwq {

// Windows of so many tokens: the documents' tokens joined end to end, cut into disjoint pieces, the
// remainder dropped. Where the encoder puts BOS in front of a text, every window begins with it and
// nothing else of the documents has it, as in calibration: a model that was trained so is far from
// itself without.
class DisjointWindows {
 public:
  // `encoder` outlives this. Of more than max_windows > 0, the first ones. INVALID_ARGUMENT
  // "SEQUENCE_LENGTH_INVALID" below two tokens.
  static absl::StatusOr<DisjointWindows> Create(const RequestEncoder* encoder,
                                                int64_t sequence_length, int64_t max_windows);
  // False once there are enough. Errors: the tokenizer's.
  absl::StatusOr<bool> Add(absl::string_view document);
  // INVALID_ARGUMENT "TEXT_TOO_SHORT" when there is not one window.
  absl::StatusOr<TokenBatch> Finish() const;

 private:
  DisjointWindows(const RequestEncoder* encoder, int64_t sequence_length, int64_t max_windows);
  const RequestEncoder* encoder_;
  std::optional<int32_t> bos_;
  int64_t piece_;       // tokens of the text in each window
  int64_t max_tokens_;  // of all windows; negative: all there are
  std::vector<int32_t> tokens_;
};

// The leading bytes of the documents. One that does not fit is cut (TextBeginning), and is the
// last.
class LeadingText {
 public:
  explicit LeadingText(int64_t max_bytes) : left_(max_bytes) {}
  // False once there is no room.
  bool Add(absl::string_view document);
  const std::vector<std::string>& documents() const { return documents_; }

 private:
  int64_t left_;
  std::vector<std::string> documents_;
};

}  // namespace lwq
