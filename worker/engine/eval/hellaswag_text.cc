// See hellaswag_text.h.
#include "worker/engine/eval/hellaswag_text.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_replace.h"
#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

struct CaseMapping {
  char32_t code;
  char32_t to[3];  // 0: none
};
#include "worker/engine/eval/case_table.inc"

template <size_t N>
void AppendMapped(char32_t c, const CaseMapping (&table)[N], std::string* out) {
  const auto* it = std::lower_bound(std::begin(table), std::end(table), c,
                                    [](const CaseMapping& m, char32_t v) { return m.code < v; });
  if (it == std::end(table) || it->code != c) {
    AppendUtf8(c, out);
    return;
  }
  for (const char32_t to : it->to) {
    if (to != 0) AppendUtf8(to, out);
  }
}

}  // namespace

std::string Capitalize(absl::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const bool first = at == 0;
    const char32_t c = NextCodePoint(text, &at);
    if (first) {
      AppendMapped(c, kTitle, &out);
    } else {
      AppendMapped(c, kLower, &out);
    }
  }
  return out;
}

absl::string_view StripWhitespace(absl::string_view text) {
  size_t begin = 0;
  while (begin < text.size()) {
    size_t next = begin;
    const char32_t c = NextCodePoint(text, &next);
    // Python also strips the four separators of ASCII.
    if (!IsWhitespace(c) && !(c >= 0x1C && c <= 0x1F)) break;
    begin = next;
  }
  size_t end = text.size();
  while (end > begin) {
    size_t last = end - 1;
    while (last > begin && (text[last] & 0xC0) == 0x80) --last;
    size_t at = last;
    const char32_t c = NextCodePoint(text, &at);
    if (!IsWhitespace(c) && !(c >= 0x1C && c <= 0x1F)) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

std::string CleanHellaswag(absl::string_view text) {
  const std::string titled = absl::StrReplaceAll(StripWhitespace(text), {{" [title]", ". "}});
  std::string out;
  for (size_t at = 0; at < titled.size();) {
    if (titled[at] == '[') {
      const size_t close = titled.find_first_of("]\n", at);
      if (close != std::string::npos && titled[close] == ']') {
        at = close + 1;
        continue;
      }
    }
    out.push_back(titled[at++]);
  }
  return absl::StrReplaceAll(out, {{"  ", " "}});
}

}  // namespace lwq
