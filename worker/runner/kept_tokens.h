// Texts of evaluations as tokens, kept by a worker from one task to the next: a job measures its source
// and its artifact on the same texts, and both have the same tokenizer.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/mutex.h"
#include "worker/engine/tokenizer/tokenizer.h"

namespace lwq {

// Thread-safe.
class KeptTokens {
 public:
  // Of all texts together; those that were used longest ago go first.
  static constexpr size_t kMaxTokens = size_t{4} << 20;

  // What a text takes beside its tokens (its key twice, nodes of two containers), as tokens.
  static constexpr size_t kTextTokens = 80;

  // What `tokenizer`, which `digest` names, makes of a text. Errors are not kept.
  absl::StatusOr<std::vector<int32_t>> Encode(const Tokenizer& tokenizer, absl::string_view digest,
                                              absl::string_view text, bool add_special_tokens);

 private:
  using Texts = std::list<std::pair<std::string, std::vector<int32_t>>>;
  Mutex mu_;
  Texts texts_ ABSL_GUARDED_BY(mu_);  // the latest first
  absl::flat_hash_map<std::string, Texts::iterator> places_ ABSL_GUARDED_BY(mu_);
  size_t num_tokens_ ABSL_GUARDED_BY(mu_) = 0;  // and kTextTokens a text
};

// `tokenizer`, whose encodings `kept` (which outlives it) keeps; the tokenizer itself where that is
// null or the tokenizer has no digest.
std::unique_ptr<Tokenizer> KeepTokens(std::unique_ptr<Tokenizer> tokenizer,
                                      const std::string& digest, KeptTokens* kept);

}  // namespace lwq
