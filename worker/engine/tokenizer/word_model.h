// What a tokenizer.json calls its model: cuts a word, which the steps before made, into tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"

namespace lwq {

// Immutable and thread-safe.
class WordModel {
 public:
  virtual ~WordModel() = default;
  // Appends the ids of one word (valid UTF-8).
  virtual void EncodeWord(absl::string_view word, std::vector<int32_t>* ids) const = 0;
  // -1 when there is no such token.
  virtual int32_t IdOf(absl::string_view token) const = 0;
  // Empty for ids that are not in the vocabulary.
  virtual absl::string_view TokenOf(int32_t id) const = 0;
  // Tokens, and one past the largest id: they differ when ids have holes.
  virtual int64_t num_tokens() const = 0;
  virtual int64_t id_end() const = 0;
  // Whether a text gives the same tokens when it is cut in front of each U+2581 that follows
  // another character.
  virtual bool may_cut_at_marks() const = 0;
};

}  // namespace lwq
