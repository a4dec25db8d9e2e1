// See added_tokens.h.
#include "worker/engine/tokenizer/added_tokens.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "worker/engine/tokenizer/text_pattern.h"
#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

// Whether the character that begins or ends `text` is part of a word.
bool HasWordCharacter(absl::string_view text, bool at_end) {
  static const absl::StatusOr<TextPattern> word =
      TextPattern::FromRegex(absl::StrCat("[", kWordMembers, "]"));
  if (text.empty() || !word.ok()) return false;
  size_t begin = at_end ? text.size() - 1 : 0;
  while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
  size_t end = begin;
  NextCodePoint(text, &end);
  std::vector<TextRange> matches;
  return word->FindAll(text.substr(begin, end - begin), &matches).ok() && !matches.empty();
}

size_t EndOfLeadingWhitespace(absl::string_view text, size_t at) {
  while (at < text.size()) {
    size_t next = at;
    if (!IsWhitespace(NextCodePoint(text, &next))) break;
    at = next;
  }
  return at;
}

size_t BeginOfTrailingWhitespace(absl::string_view text, size_t end) {
  while (end > 0) {
    size_t begin = end - 1;
    while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
    size_t at = begin;
    if (!IsWhitespace(NextCodePoint(text, &at))) break;
    end = begin;
  }
  return end;
}

}  // namespace

void AddedTokenMatcher::Add(const AddedToken& token, absl::string_view content) {
  if (content.empty() || !index_of_.emplace(content, tokens_.size()).second) return;
  tokens_.push_back(token);
  sizes_by_first_byte_.resize(256);
  std::vector<size_t>& sizes = sizes_by_first_byte_[static_cast<uint8_t>(content[0])];
  const auto at = std::lower_bound(sizes.begin(), sizes.end(), content.size(), std::greater<>());
  if (at == sizes.end() || *at != content.size()) sizes.insert(at, content.size());
}

const AddedToken* AddedTokenMatcher::LongestAt(absl::string_view text, size_t at,
                                               size_t* size) const {
  for (const size_t candidate : sizes_by_first_byte_[static_cast<uint8_t>(text[at])]) {
    if (candidate > text.size() - at) continue;
    const auto it = index_of_.find(text.substr(at, candidate));
    if (it == index_of_.end()) continue;
    *size = candidate;
    return &tokens_[it->second];
  }
  return nullptr;
}

std::vector<TextSpan> AddedTokenMatcher::Split(absl::string_view text) const {
  std::vector<TextSpan> spans;
  size_t covered = 0;
  for (size_t at = 0; !tokens_.empty() && at < text.size();) {
    size_t size = 0;
    const AddedToken* token = LongestAt(text, at, &size);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + size;
    at = end;
    if (token->single_word && (HasWordCharacter(text.substr(0, begin), /*at_end=*/true) ||
                               HasWordCharacter(text.substr(end), /*at_end=*/false))) {
      continue;
    }
    if (token->lstrip) begin = std::max(BeginOfTrailingWhitespace(text, begin), covered);
    if (token->rstrip) end = EndOfLeadingWhitespace(text, end);
    if (begin > covered) spans.push_back({covered, begin, -1});
    spans.push_back({begin, end, token->id});
    covered = end;
  }
  if (covered < text.size()) spans.push_back({covered, text.size(), -1});
  return spans;
}

}  // namespace lwq
