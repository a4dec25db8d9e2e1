// See nfc.h. Decompose canonically, order combining marks, compose.
#include "worker/engine/tokenizer/nfc.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

struct Decomposition {
  char32_t code, first, second;
};
struct CombiningRange {
  char32_t first, last;
  uint8_t combining_class;
};
struct Composition {
  char32_t first, second, composed;
};
#include "worker/engine/tokenizer/nfc_table.inc"

// Hangul syllables compose by arithmetic.
constexpr char32_t kSyllableBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161,
                   kTrailBase = 0x11A7;
constexpr char32_t kLeads = 19, kVowels = 21, kTrails = 28;
constexpr char32_t kSyllables = kLeads * kVowels * kTrails;

struct Mark {
  char32_t code;
  uint8_t combining_class;
};

uint8_t CombiningClass(char32_t c) {
  if (c < 0x300) return 0;
  const auto* it =
      std::upper_bound(std::begin(kCombiningRanges), std::end(kCombiningRanges), c,
                       [](char32_t v, const CombiningRange& r) { return v < r.first; });
  if (it == std::begin(kCombiningRanges)) return 0;
  --it;
  return c <= it->last ? it->combining_class : 0;
}

// Depth is at most four in Unicode's data.
void AppendDecomposed(char32_t c, std::vector<Mark>* out) {
  if (c < 0xC0) {
    out->push_back({c, 0});
    return;
  }
  if (c >= kSyllableBase && c < kSyllableBase + kSyllables) {
    const char32_t index = c - kSyllableBase;
    out->push_back({kLeadBase + index / (kVowels * kTrails), 0});
    out->push_back({kVowelBase + index % (kVowels * kTrails) / kTrails, 0});
    if (index % kTrails != 0) out->push_back({kTrailBase + index % kTrails, 0});
    return;
  }
  const auto* it = std::lower_bound(std::begin(kDecompositions), std::end(kDecompositions), c,
                                    [](const Decomposition& d, char32_t v) { return d.code < v; });
  if (it == std::end(kDecompositions) || it->code != c) {
    out->push_back({c, CombiningClass(c)});
    return;
  }
  AppendDecomposed(it->first, out);
  if (it->second != 0) AppendDecomposed(it->second, out);
}

// 0: the pair does not compose.
char32_t Compose(char32_t a, char32_t b) {
  if (a >= kLeadBase && a < kLeadBase + kLeads && b >= kVowelBase && b < kVowelBase + kVowels) {
    return kSyllableBase + ((a - kLeadBase) * kVowels + (b - kVowelBase)) * kTrails;
  }
  if (a >= kSyllableBase && a < kSyllableBase + kSyllables && (a - kSyllableBase) % kTrails == 0 &&
      b > kTrailBase && b < kTrailBase + kTrails) {
    return a + (b - kTrailBase);
  }
  const auto* it = std::lower_bound(std::begin(kCompositions), std::end(kCompositions), a,
                                    [b](const Composition& c, char32_t first) {
                                      return c.first != first ? c.first < first : c.second < b;
                                    });
  const bool found = it != std::end(kCompositions) && it->first == a && it->second == b;
  return found ? it->composed : 0;
}

// Stable order by class between starters.
void OrderMarks(std::vector<Mark>* marks) {
  for (size_t i = 0; i < marks->size();) {
    if ((*marks)[i].combining_class == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < marks->size() && (*marks)[end].combining_class != 0) ++end;
    std::stable_sort(marks->begin() + i, marks->begin() + end, [](const Mark& a, const Mark& b) {
      return a.combining_class < b.combining_class;
    });
    i = end;
  }
}

void ComposeMarks(std::vector<Mark>* marks) {
  size_t out = 0;
  size_t starter = SIZE_MAX;  // index in the output
  for (const Mark mark : *marks) {
    if (starter != SIZE_MAX) {
      const Mark& last = (*marks)[out - 1];
      const bool blocked = out - 1 != starter && last.combining_class >= mark.combining_class;
      const char32_t composed = blocked ? 0 : Compose((*marks)[starter].code, mark.code);
      if (composed != 0) {
        (*marks)[starter].code = composed;
        continue;
      }
    }
    if (mark.combining_class == 0) starter = out;
    (*marks)[out++] = mark;
  }
  marks->resize(out);
}

}  // namespace

std::string NormalizeNfc(absl::string_view text) {
  // Nothing below U+0300 combines or decomposes under NFC; 0xCC is U+0300's first byte.
  const bool simple = std::none_of(text.begin(), text.end(),
                                   [](char c) { return static_cast<uint8_t>(c) >= 0xCC; });
  if (simple) return std::string(text);
  std::vector<Mark> marks;
  marks.reserve(text.size());
  for (size_t at = 0; at < text.size();) AppendDecomposed(NextCodePoint(text, &at), &marks);
  OrderMarks(&marks);
  ComposeMarks(&marks);
  std::string out;
  out.reserve(text.size());
  for (const Mark& mark : marks) AppendUtf8(mark.code, &out);
  return out;
}

}  // namespace lwq
