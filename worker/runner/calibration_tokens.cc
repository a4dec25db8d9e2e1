#include "worker/runner/calibration_tokens.h"

#include <algorithm>

#include "base/status_macros.h"

namespace lwq {

absl::StatusOr<std::shared_ptr<const TokenBatch>> CalibrationTokens::Get(const std::string& key,
                                                                         Maker make) {
  MutexLock lock(&mu_);
  const auto kept = std::find_if(texts_.begin(), texts_.end(),
                                 [&](const auto& text) { return text.first == key; });
  if (kept != texts_.end()) {
    std::rotate(texts_.begin(), kept, kept + 1);
    return texts_.front().second;
  }
  LWQ_ASSIGN_OR_RETURN(TokenBatch tokens, make());
  if (texts_.size() == kMaxTexts) texts_.pop_back();
  texts_.emplace_front(key, std::make_shared<const TokenBatch>(std::move(tokens)));
  return texts_.front().second;
}

}  // namespace lwq
