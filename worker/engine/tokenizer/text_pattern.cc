// See text_pattern.h. The cutting rules are those of Hugging Face `tokenizers`
// (SplitDelimiterBehavior).
#define PCRE2_CODE_UNIT_WIDTH 8
#include "worker/engine/tokenizer/text_pattern.h"

#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
// A catastrophic expression stops with an error instead of running for hours. The patterns of real
// models need a few steps for each character of one word.
constexpr uint32_t kMatchLimit = 5'000'000;
constexpr uint32_t kDepthLimit = 100'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;

// Unicode White_Space as ranges of a class. PCRE2's own \s has U+180E besides.
constexpr char kSpaces[] =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
    "\\x{205f}\\x{3000}";
constexpr char kNotSpaces[] =
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"
    "\\x{3001}-\\x{10ffff}";

absl::Status Unsupported(absl::string_view what, absl::string_view regex) {
  return Failure(reasons::kTokenizerUnsupported,
                 absl::StrCat("the pattern ", regex, " uses ", what,
                              ", which is not supported: its meaning differs between "
                              "regular expression libraries"));
}

// Oniguruma's \w. Outside a class it also has the superscripts and fractions of Latin-1.
constexpr char kWordsInClass[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
constexpr char kWords[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

// Rewrites what the engines write differently and refuses what they read differently.
class Translator {
 public:
  explicit Translator(absl::string_view regex) : regex_(regex) {}

  absl::StatusOr<std::string> Run() {
    for (; at_ < regex_.size(); ++at_) {
      if (regex_[at_] == '\\' && at_ + 1 < regex_.size()) {
        LWQ_RETURN_IF_ERROR(Escape());
      } else if (depth_ > 0) {
        LWQ_RETURN_IF_ERROR(InClass());
      } else {
        LWQ_RETURN_IF_ERROR(OutsideClass());
      }
    }
    return std::move(out_);
  }

 private:
  bool NextIs(char c) const { return at_ + 1 < regex_.size() && regex_[at_ + 1] == c; }

  absl::Status Escape() {
    const char escaped = regex_[++at_];
    const bool in_class = depth_ > 0;
    switch (escaped) {
      case 's':
        absl::StrAppend(&out_, in_class ? "" : "[", kSpaces, in_class ? "" : "]");
        return absl::OkStatus();
      case 'S':
        absl::StrAppend(&out_, in_class ? kNotSpaces : absl::StrCat("[^", kSpaces, "]"));
        return absl::OkStatus();
      case 'w':
        absl::StrAppend(&out_, in_class ? kWordsInClass : absl::StrCat("[", kWords, "]"));
        return absl::OkStatus();
      case 'W':
        if (in_class) return Unsupported("\\W in a class", regex_);
        absl::StrAppend(&out_, "[^", kWords, "]");
        return absl::OkStatus();
      case 'b':
      case 'B':
        if (in_class) return Unsupported("\\b in a class", regex_);
        AppendBoundary(escaped == 'b');
        return absl::OkStatus();
      default:
        return OtherEscape(escaped);
    }
  }

  void AppendBoundary(bool wanted) {
    const std::string behind = absl::StrCat("(?<=[", kWords, "])");
    const std::string not_behind = absl::StrCat("(?<![", kWords, "])");
    const std::string ahead = absl::StrCat("(?=[", kWords, "])");
    const std::string not_ahead = absl::StrCat("(?![", kWords, "])");
    absl::StrAppend(&out_, "(?:", behind, wanted ? not_ahead : ahead, "|", not_behind,
                    wanted ? ahead : not_ahead, ")");
  }

  absl::Status OtherEscape(char escaped) {
    if (absl::string_view("hHRXKGgkyYONCQ").find(escaped) != absl::string_view::npos) {
      return Unsupported(absl::StrCat("\\", absl::string_view(&escaped, 1)), regex_);
    }
    out_.push_back('\\');
    out_.push_back(escaped);
    // The braces of \p{L} and \x{41} are no repetition.
    if (NextIs('{')) {
      const size_t close = std::min(regex_.find('}', at_), regex_.size() - 1);
      absl::StrAppend(&out_, regex_.substr(at_ + 1, close - at_));
      at_ = close;
    }
    return absl::OkStatus();
  }

  // A class inside a class adds its members: its brackets are left out.
  absl::Status InClass() {
    const char c = regex_[at_];
    if (c == '&' && NextIs('&')) return Unsupported("&& in a class", regex_);
    if (c == '[') {
      if (NextIs('^')) return Unsupported("a negated class inside a class", regex_);
      if (NextIs(':')) return Unsupported("[: in a class", regex_);
      ++depth_;
      return absl::OkStatus();
    }
    if (c == ']' && --depth_ > 0) return absl::OkStatus();
    out_.push_back(c);
    return absl::OkStatus();
  }

  absl::Status OutsideClass() {
    const char c = regex_[at_];
    if (c == '}' && NextIs('+')) return Unsupported("{...}+", regex_);
    if (c == '^') {  // at the beginning of each line
      absl::StrAppend(&out_, "(?:\\A|(?<=\\n)(?!\\z))");
      return absl::OkStatus();
    }
    if (c == '$') {  // at the end of each line
      absl::StrAppend(&out_, "(?=\\n|\\z)");
      return absl::OkStatus();
    }
    out_.push_back(c);
    if (c != '[') return absl::OkStatus();
    ++depth_;
    if (NextIs('^')) out_.push_back(regex_[++at_]);
    if (NextIs(']')) {  // a ']' that comes first stands for itself
      absl::StrAppend(&out_, "\\]");
      ++at_;
    }
    return absl::OkStatus();
  }

  const absl::string_view regex_;
  std::string out_;
  size_t at_ = 0;
  int depth_ = 0;  // of classes in classes
};

}  // namespace

struct TextPattern::Compiled {
  ~Compiled() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
  std::string regex;
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
};

TextPattern::TextPattern(std::string literal, std::unique_ptr<Compiled> compiled)
    : literal_(std::move(literal)), compiled_(std::move(compiled)) {}
TextPattern::TextPattern(TextPattern&&) noexcept = default;
TextPattern& TextPattern::operator=(TextPattern&&) noexcept = default;
TextPattern::~TextPattern() = default;

absl::StatusOr<TextPattern> TextPattern::FromString(absl::string_view literal) {
  if (literal.empty()) {
    return Failure(reasons::kTokenizerInvalid, "a pattern of the tokenizer is the empty string");
  }
  return TextPattern(std::string(literal), nullptr);
}

absl::StatusOr<TextPattern> TextPattern::FromRegex(absl::string_view regex) {
  if (regex.size() > kMaxPatternBytes) {
    return Failure(reasons::kTokenizerInvalid,
                   absl::StrCat("a regular expression of the tokenizer has ", regex.size(),
                                " bytes; at most ", kMaxPatternBytes, " are read"));
  }
  LWQ_ASSIGN_OR_RETURN(const std::string translated, Translator(regex).Run());
  auto compiled = std::make_unique<Compiled>();
  compiled->regex = std::string(regex);
  int error = 0;
  PCRE2_SIZE at = 0;
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr);
  if (compiled->code == nullptr) {
    unsigned char text[256] = {};
    pcre2_get_error_message(error, text, sizeof(text));
    return Failure(reasons::kTokenizerInvalid,
                   absl::StrCat("the regular expression ", regex,
                                " does not compile: ", reinterpret_cast<const char*>(text)));
  }
  // Without the just-in-time compiler (not on every machine) matching is slower, not different.
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);
  compiled->context = pcre2_match_context_create(nullptr);
  if (compiled->context == nullptr) {
    return absl::ResourceExhaustedError("no memory for a regular expression");
  }
  pcre2_set_match_limit(compiled->context, kMatchLimit);
  pcre2_set_depth_limit(compiled->context, kDepthLimit);
  pcre2_set_heap_limit(compiled->context, kHeapLimitKib);
  return TextPattern("", std::move(compiled));
}

absl::Status TextPattern::FindAll(absl::string_view text, std::vector<TextRange>* matches) const {
  matches->clear();
  if (compiled_ == nullptr) {
    for (size_t at = text.find(literal_); at != absl::string_view::npos;
         at = text.find(literal_, at + literal_.size())) {
      matches->push_back({at, at + literal_.size()});
    }
    return absl::OkStatus();
  }
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
      pcre2_match_data_create_from_pattern(compiled_->code, nullptr), pcre2_match_data_free);
  if (data == nullptr) return absl::ResourceExhaustedError("no memory for a regular expression");
  constexpr size_t kNone = absl::string_view::npos;
  size_t at = 0, last_end = kNone;
  while (!text.empty() && at <= text.size()) {
    const int rc = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                               text.size(), at, PCRE2_NO_UTF_CHECK, data.get(), compiled_->context);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      return Failure(reasons::kTokenizerInvalid,
                     absl::StrCat("the regular expression ", compiled_->regex,
                                  " gave up after its match limit (PCRE2 error ", rc, ")"));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    const bool empty = range[1] == range[0];
    // An empty match cuts too, but not where one has just ended.
    if (!empty || range[0] != last_end) matches->push_back({range[0], range[1]});
    last_end = range[1];
    at = range[1] + (empty ? 1 : 0);
    while (at < text.size() && (text[at] & 0xC0) == 0x80) ++at;
  }
  return absl::OkStatus();
}

namespace {

struct Part {
  TextRange range;
  bool is_match;
};

// Matches and the gaps between them, in order, covering the text.
std::vector<Part> AllParts(size_t text_size, const std::vector<TextRange>& matches, bool invert) {
  std::vector<Part> parts;
  size_t at = 0;
  for (const TextRange& match : matches) {
    if (match.begin > at) parts.push_back({{at, match.begin}, invert});
    parts.push_back({match, !invert});
    at = match.end;
  }
  if (at < text_size) parts.push_back({{at, text_size}, invert});
  return parts;
}

}  // namespace

std::vector<TextRange> SplitByMatches(size_t text_size, const std::vector<TextRange>& matches,
                                      SplitBehavior behavior, bool invert) {
  std::vector<TextRange> pieces;
  const std::vector<Part> parts = AllParts(text_size, matches, invert);
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    const bool after_match = i > 0 && parts[i - 1].is_match;
    bool join = false;
    switch (behavior) {
      case SplitBehavior::kRemoved:
        if (part.is_match) continue;
        break;
      case SplitBehavior::kIsolated:
        break;
      case SplitBehavior::kContiguous:
        join = i > 0 && parts[i - 1].is_match == part.is_match;
        break;
      case SplitBehavior::kMergedWithPrevious:
        join = i > 0 && part.is_match && !after_match;
        break;
      case SplitBehavior::kMergedWithNext:
        join = !part.is_match && after_match;
        break;
    }
    if (join) {
      pieces.back().end = part.range.end;
    } else {
      pieces.push_back(part.range);
    }
  }
  const auto is_empty = [](const TextRange& piece) { return piece.begin == piece.end; };
  pieces.erase(std::remove_if(pieces.begin(), pieces.end(), is_empty), pieces.end());
  return pieces;
}

}  // namespace lwq
