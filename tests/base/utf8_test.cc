#include "base/utf8.h"

#include "gtest/gtest.h"

namespace lwq {
namespace {

TEST(Utf8Test, KnowsTextFromBytes) {
  for (const char* text :
       {"", "a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(IsValidUtf8(text)) << text;
  }
  for (const char* text : {"\x80", "\xC0\x80", "\xC3", "\xE0\x9F\xBF", "\xED\xA0\x80",
                           "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "a\xFF"}) {
    EXPECT_FALSE(IsValidUtf8(text)) << text;
  }
}

// The example of the Unicode standard, table 3-8.
TEST(Utf8Test, ReplacesMaximalDamagedSequences) {
  EXPECT_EQ(RepairUtf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
            "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
            "b\xEF\xBF\xBD"
            "c\xEF\xBF\xBD\xEF\xBF\xBD"
            "d");
}

TEST(Utf8Test, CutsBetweenCharacters) {
  EXPECT_EQ(CutToCharacters("abc", 3), "abc");
  EXPECT_EQ(CutToCharacters("abcd", 3), "abc");
  EXPECT_EQ(CutToCharacters("a\u20acb", 3), "a");
  EXPECT_EQ(CutToCharacters("a\u20acb", 4), "a\u20ac");
  EXPECT_EQ(CutToCharacters("\U0001f600", 3), "");
}

}  // namespace
}  // namespace lwq
