#include "worker/engine/eval/text_windows.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {

DisjointWindows::DisjointWindows(const RequestEncoder* encoder, int64_t sequence_length,
                                 int64_t max_windows)
    : encoder_(encoder),
      bos_(encoder->bos()),
      piece_(sequence_length - (bos_.has_value() ? 1 : 0)),
      max_tokens_(max_windows > 0 ? max_windows * piece_ : -1) {}

absl::StatusOr<DisjointWindows> DisjointWindows::Create(const RequestEncoder* encoder,
                                                        int64_t sequence_length,
                                                        int64_t max_windows) {
  if (sequence_length < 2) {
    return Failure(reasons::kSequenceLengthInvalid,
                   absl::StrCat("windows of ", sequence_length, " tokens; at least 2"));
  }
  return DisjointWindows(encoder, sequence_length, max_windows);
}

absl::StatusOr<bool> DisjointWindows::Add(absl::string_view document) {
  std::vector<int32_t> ids;
  if (max_tokens_ < 0) {
    LWQ_ASSIGN_OR_RETURN(ids, encoder_->EncodeText(document));
  } else {
    const int64_t missing = max_tokens_ - static_cast<int64_t>(tokens_.size());
    // One more for the BOS that may be among them.
    LWQ_ASSIGN_OR_RETURN(ids, encoder_->EncodeBeginning(document, missing + 1));
  }
  const bool has_bos = bos_.has_value() && !ids.empty() && ids.front() == *bos_;
  tokens_.insert(tokens_.end(), ids.begin() + (has_bos ? 1 : 0), ids.end());
  return max_tokens_ < 0 || static_cast<int64_t>(tokens_.size()) < max_tokens_;
}

absl::StatusOr<TokenBatch> DisjointWindows::Finish() const {
  int64_t size = static_cast<int64_t>(tokens_.size());
  if (size < piece_) {
    return Failure(reasons::kTextTooShort,
                   absl::StrCat("the text has ", size, " tokens; one window needs ", piece_));
  }
  if (max_tokens_ >= 0) size = std::min(size, max_tokens_);
  TokenBatch batch;
  std::vector<int32_t> window;
  for (auto begin = tokens_.begin(); begin + piece_ <= tokens_.begin() + size; begin += piece_) {
    window.clear();
    if (bos_.has_value()) window.push_back(*bos_);
    window.insert(window.end(), begin, begin + piece_);
    batch.Add(window);
  }
  return batch;
}

bool LeadingText::Add(absl::string_view document) {
  const absl::string_view part = TextBeginning(document, static_cast<size_t>(left_));
  if (!part.empty() || document.empty()) documents_.emplace_back(part);
  left_ = part.size() < document.size() ? 0 : left_ - static_cast<int64_t>(part.size());
  return left_ > 0;
}

}  // namespace lwq
