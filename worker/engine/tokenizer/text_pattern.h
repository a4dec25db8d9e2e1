// What a tokenizer.json calls a pattern: a plain string or a regular expression, and the ways of
// cutting a text by its matches. Expressions are written for Oniguruma (or Rust's regex); the
// common subset is run by PCRE2 with Unicode properties, and what would mean something else there
// is refused.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

// The members of Rust's Unicode \w, to be put inside a class.
inline constexpr char kWordMembers[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}";

struct TextRange {
  size_t begin;
  size_t end;
};

// Immutable; matching is thread-safe.
class TextPattern {
 public:
  static absl::StatusOr<TextPattern> FromString(absl::string_view literal);
  // INVALID_ARGUMENT "TOKENIZER_INVALID" when it does not compile, "TOKENIZER_UNSUPPORTED" for a
  // construct whose meaning differs between the engines (x{n}+, && and negated classes in a class).
  static absl::StatusOr<TextPattern> FromRegex(absl::string_view regex);
  TextPattern(TextPattern&&) noexcept;
  TextPattern& operator=(TextPattern&&) noexcept;
  ~TextPattern();

  // All matches in order, none overlapping, as Oniguruma finds them: empty ones too, but none where
  // a match has just ended. `text` is valid UTF-8. Error "TOKENIZER_INVALID" when the expression
  // exceeds the match limits.
  absl::Status FindAll(absl::string_view text, std::vector<TextRange>* matches) const;

 private:
  struct Compiled;
  explicit TextPattern(std::string literal, std::unique_ptr<Compiled> compiled);
  std::string literal_;  // used when compiled_ is null
  std::unique_ptr<Compiled> compiled_;
};

// Where the delimiters (the matches) go.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// The pieces of `text` cut by `matches`; with `invert`, matches and gaps change roles. Empty pieces
// are left out.
std::vector<TextRange> SplitByMatches(size_t text_size, const std::vector<TextRange>& matches,
                                      SplitBehavior behavior, bool invert);

}  // namespace lwq
