#include "client/suggest.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace lwq::client {
namespace {

constexpr size_t kLongestWord = 64;  // what is longer is no slip of a key

// Damerau's and Levenshtein's distance, where no letter is moved twice.
size_t Slips(absl::string_view a, absl::string_view b) {
  std::vector<size_t> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    next[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = row[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      next[j] = std::min({row[j] + 1, next[j - 1] + 1, changed});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) next[j] = std::min(next[j], before[j - 2] + 1);
    }
    before = row;
    row = next;
  }
  return row[b.size()];
}

}  // namespace

std::string Nearest(absl::string_view word, absl::Span<const std::string> choices) {
  if (word.empty() || word.size() > kLongestWord) return "";
  const std::string typed = absl::AsciiStrToLower(word);
  std::string nearest;
  // Of a short word one slip leaves little enough; "up" is nothing that "gc" was meant for.
  size_t fewest = 1 + std::max<size_t>(1, word.size() / 3);
  for (const std::string& choice : choices) {
    const size_t slips = Slips(typed, absl::AsciiStrToLower(choice));
    if (slips >= fewest || slips >= choice.size()) continue;
    fewest = slips;
    nearest = choice;
  }
  return nearest;
}

std::string DidYouMean(absl::string_view word, absl::Span<const std::string> choices,
                       absl::string_view prefix) {
  const std::string nearest = Nearest(word, choices);
  return nearest.empty() ? "" : absl::StrCat("; did you mean ", prefix, nearest, "?");
}

}  // namespace lwq::client
