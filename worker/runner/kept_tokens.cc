#include "worker/runner/kept_tokens.h"

#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

class KeepingTokenizer : public Tokenizer {
 public:
  KeepingTokenizer(std::unique_ptr<Tokenizer> tokenizer, std::string digest, KeptTokens* kept)
      : tokenizer_(std::move(tokenizer)), digest_(std::move(digest)), kept_(kept) {}

  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              bool add_special_tokens) const override {
    return kept_->Encode(*tokenizer_, digest_, text, add_special_tokens);
  }
  std::string Decode(const std::vector<int32_t>& ids) const override {
    return tokenizer_->Decode(ids);
  }
  int64_t vocab_size() const override { return tokenizer_->vocab_size(); }
  int32_t bos_id() const override { return tokenizer_->bos_id(); }
  int32_t eos_id() const override { return tokenizer_->eos_id(); }
  bool adds_bos() const override { return tokenizer_->adds_bos(); }

 private:
  const std::unique_ptr<Tokenizer> tokenizer_;
  const std::string digest_;
  KeptTokens* const kept_;
};

}  // namespace

absl::StatusOr<std::vector<int32_t>> KeptTokens::Encode(const Tokenizer& tokenizer,
                                                        absl::string_view digest,
                                                        absl::string_view text,
                                                        bool add_special_tokens) {
  const std::string key =
      absl::StrCat(digest, add_special_tokens ? " with " : " without ", Sha256Hex(text));
  {
    MutexLock lock(&mu_);
    const auto found = places_.find(key);
    if (found != places_.end()) {
      texts_.splice(texts_.begin(), texts_, found->second);
      return found->second->second;
    }
  }
  LWQ_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, tokenizer.Encode(text, add_special_tokens));
  MutexLock lock(&mu_);
  if (tokens.size() + kTextTokens > kMaxTokens || places_.contains(key)) return tokens;
  num_tokens_ += tokens.size() + kTextTokens;
  texts_.emplace_front(key, tokens);
  places_[key] = texts_.begin();
  while (num_tokens_ > kMaxTokens) {
    num_tokens_ -= texts_.back().second.size() + kTextTokens;
    places_.erase(texts_.back().first);
    texts_.pop_back();
  }
  return tokens;
}

std::unique_ptr<Tokenizer> KeepTokens(std::unique_ptr<Tokenizer> tokenizer,
                                      const std::string& digest, KeptTokens* kept) {
  if (kept == nullptr || digest.empty()) return tokenizer;
  return std::make_unique<KeepingTokenizer>(std::move(tokenizer), digest, kept);
}

}  // namespace lwq
