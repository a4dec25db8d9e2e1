#include "base/settings_file.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

SettingsFile Read(const std::string& text) { return ParseSettingsFile(text, "x.toml").value(); }

TEST(SettingsFileTest, ValuesOfEachKindAreWhatAFlagTakes) {
  const SettingsFile file = Read(
      "text = \"a b\"\nliteral = 'C:\\x'\nwhole = 5_200_000\nhex = 0x10\nfraction = 0.30\nexact = "
      "4.2512345\n"
      "on = true\nlist = [\n  \"/a\", # first\n  \"/b,c\",\n]\nnone = []\n");
  EXPECT_THAT(
      file.top,
      ElementsAre(Pair("exact", ElementsAre("4.2512345")), Pair("fraction", ElementsAre("0.3")),
                  Pair("hex", ElementsAre("16")), Pair("list", ElementsAre("/a", "/b,c")),
                  Pair("literal", ElementsAre("C:\\x")), Pair("none", ElementsAre()),
                  Pair("on", ElementsAre("true")), Pair("text", ElementsAre("a b")),
                  Pair("whole", ElementsAre("5200000"))));
}

TEST(SettingsFileTest, AHashWithinQuotesIsText) {
  const SettingsFile file =
      Read("store = \"postgresql://lwq:p#ss@db/lwq\"  # the password has one\nl = [\"a#b\"]\n");
  EXPECT_THAT(file.top, ElementsAre(Pair("l", ElementsAre("a#b")),
                                    Pair("store", ElementsAre("postgresql://lwq:p#ss@db/lwq"))));
}

TEST(SettingsFileTest, SectionsHaveKeysOfTheirOwn) {
  const SettingsFile file = Read("a = 1\n[quantize]\na = 2\n[submit]\n");
  EXPECT_THAT(file.top, ElementsAre(Pair("a", ElementsAre("1"))));
  EXPECT_THAT(file.sections, ElementsAre(Pair("quantize", ElementsAre(Pair("a", ElementsAre("2")))),
                                         Pair("submit", ElementsAre())));
}

TEST(SettingsFileTest, WhatIsNoSettingIsRefusedWithItsLine) {
  for (const char* line : {"a = 2026-11-30", "a = [[1]]", "a = { b = 1 }\n[a.c]", "[b.c]\nd = 1",
                           "memory = 4GiB", "a = \"x", "a", "a =", "[a", "a = 1\na = 2"}) {
    EXPECT_THAT(ParseSettingsFile(std::string("first = 1\n") + line + "\n", "x.toml"),
                FailsWith("FLAG_INVALID", HasSubstr("x.toml, line ")))
        << line;
  }
  EXPECT_THAT(ParseSettingsFile("first = 1\nmemory = 4GiB\n", "x.toml"),
              FailsWith("FLAG_INVALID",
                        AllOf(HasSubstr("line 2: \"memory = 4GiB\""), HasSubstr("quotes"))));
}

TEST(SettingsFileTest, ControlCharactersDoNotReachTheTerminal) {
  const auto read = ParseSettingsFile("a = \"\x1b[31m\"\n", "x.toml");
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.status().message().find('\x1b'), absl::string_view::npos);
}

}  // namespace
}  // namespace lwq
