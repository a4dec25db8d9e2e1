// Expressions as Oniguruma reads them. What is expected here is what `tokenizers` 0.23 gives
// (Split, "removed"); tests/peers/family_tokens_test.py compares thousands of strings.
#include "worker/engine/tokenizer/text_pattern.h"

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

// The matches in `text`, each in brackets.
std::string Marked(const std::string& regex, const std::string& text) {
  const absl::StatusOr<TextPattern> pattern = TextPattern::FromRegex(regex);
  if (!pattern.ok()) return std::string(pattern.status().message());
  std::vector<TextRange> matches;
  EXPECT_OK(pattern->FindAll(text, &matches));
  std::string out;
  size_t at = 0;
  for (const TextRange& match : matches) {
    absl::StrAppend(&out, text.substr(at, match.begin - at), "<",
                    text.substr(match.begin, match.end - match.begin), ">");
    at = match.end;
  }
  return absl::StrCat(out, text.substr(at));
}

// Digits in threes from the right, and others that look without taking; what tokenizers gives.
TEST(TextPatternTest, EmptyMatchesCutToo) {
  EXPECT_EQ(Marked("(?=(\\d{3})+(?!\\d))", "ab1234567 cx"), "ab1<>234<>567 cx");
  EXPECT_EQ(Marked("(?=\\d)", "ab12 c"), "ab<>1<>2 c");
  EXPECT_EQ(Marked("x*", "axa"), "<>a<x>a<>");
  EXPECT_EQ(Marked("x*", "\u00e9"), "<>\u00e9<>") << "never inside a character";
  EXPECT_EQ(Marked("x*", ""), "");
  LWQ_ASSERT_OK_AND_ASSIGN(const TextPattern pattern, TextPattern::FromRegex("(?=\\d)"));
  std::vector<TextRange> matches;
  ASSERT_OK(pattern.FindAll("12", &matches));
  const std::vector<TextRange> pieces = SplitByMatches(2, matches, SplitBehavior::kIsolated, false);
  ASSERT_EQ(pieces.size(), 2u) << "no empty ones";
  EXPECT_EQ(pieces[0].end, 1u);
}

TEST(TextPatternTest, WordsAndTheirBoundaries) {
  EXPECT_EQ(Marked("\\w+", "na\u00efve_1 \u0928\u093f-b\u00b2"),
            "<na\u00efve_1> <\u0928\u093f>-<b\u00b2>");
  EXPECT_EQ(Marked("[\\w]+", "b\u00b2c"), "<b>\u00b2<c>");
  EXPECT_EQ(Marked("[^\\w]+", "a\u00b2b-c"), "a<\u00b2>b<->c");
  EXPECT_EQ(Marked("\\W", "a b"), "a< >b");
  EXPECT_EQ(Marked("\\bfoo\\b", "foo.foofoo foo"), "<foo>.foofoo <foo>");
  EXPECT_EQ(Marked("\\w\\b.", "a1b\u00b2c"), "a1b\u00b2c");
  EXPECT_EQ(Marked("\\B.", "ab c"), "a<b> c");
}

TEST(TextPatternTest, LinesBeginAndEndWithThem) {
  EXPECT_EQ(Marked("^a", "aa\naa\na"), "<a>a\n<a>a\n<a>");
  EXPECT_EQ(Marked("a$", "aa\naa\na\n"), "a<a>\na<a>\n<a>\n");
  EXPECT_EQ(Marked("\\n$", "b\n"), "b<\n>");
  EXPECT_EQ(Marked("$\\n", "b\n"), "b<\n>");
  EXPECT_EQ(Marked("[$^]", "a$^"), "a<$><^>");
  EXPECT_EQ(Marked("\\$", "a$"), "a<$>");
}

TEST(TextPatternTest, ClassesInClassesAddTheirMembers) {
  EXPECT_EQ(Marked("[a[bc]d]+", "xabcdy"), "x<abcd>y");
  EXPECT_EQ(Marked("[^a[bc]]+", "xabcy"), "<x>abc<y>");
  EXPECT_EQ(Marked("[]a]+", "[a]b"), "[<a]>b");
  EXPECT_EQ(Marked("[^]a]", "[a]b"), "<[>a]<b>");
  EXPECT_EQ(Marked("[\\[\\]a]+", "[a]b"), "<[a]>b");
}

TEST(TextPatternTest, WhatWouldMeanSomethingElseIsRefused) {
  for (const char* regex : {"a{2}+", "[a&&b]", "[a[^b]]", "[\\W]", "\\h", "[[:alpha:]]"}) {
    EXPECT_THAT(TextPattern::FromRegex(regex),
                FailsWith("TOKENIZER_UNSUPPORTED", HasSubstr(regex)));
  }
}

}  // namespace
}  // namespace lwq
