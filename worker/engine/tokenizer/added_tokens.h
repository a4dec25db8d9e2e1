// Tokens that are looked for in the text before anything else is done to it: <s>, <|endoftext|>,
// runs of blanks. Rules of Hugging Face's `AddedVocabulary`: leftmost, then longest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace lwq {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the whitespace before it
  bool rstrip = false;       // and after it
  bool normalized = false;   // looked for after normalization
};

// A run of text with the token that it is, or text to be encoded (token_id -1).
struct TextSpan {
  size_t begin;
  size_t end;
  int32_t token_id;
};

// Immutable after the last Add; then thread-safe.
class AddedTokenMatcher {
 public:
  // `content` is what is looked for (the token's own, or its normalized form). Of equal contents
  // the first one stays.
  void Add(const AddedToken& token, absl::string_view content);
  bool empty() const { return tokens_.empty(); }
  // Covers `text` (valid UTF-8).
  std::vector<TextSpan> Split(absl::string_view text) const;

 private:
  const AddedToken* LongestAt(absl::string_view text, size_t at, size_t* size) const;

  std::vector<AddedToken> tokens_;
  absl::flat_hash_map<std::string, size_t> index_of_;
  std::vector<std::vector<size_t>> sizes_by_first_byte_;  // descending
};

}  // namespace lwq
