#include "client/flags.h"

#include <array>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::array<FlagDef, 3> kFlags = {{
    {"bits", "LIST", "widths"},
    {"json", "", "as JSON"},
    {"out", "DIR", "where"},
}};
const std::array<absl::Span<const FlagDef>, 1> kGroups = {kFlags};

TEST(FlagsTest, ReadsBothFormsAndArgumentsInAnyOrder) {
  LWQ_ASSERT_OK_AND_ASSIGN(const ParsedLine line,
                           ParseLine(kGroups, {"a", "--bits=2,3", "b", "--out", "x", "--json"}));
  EXPECT_THAT(line.arguments, ElementsAre("a", "b"));
  EXPECT_EQ(line.flags.Get("bits"), "2,3");
  EXPECT_EQ(line.flags.Get("out"), "x");
  EXPECT_TRUE(line.flags.Has("json"));
}

TEST(FlagsTest, NotGivenIsNotSet) {
  LWQ_ASSERT_OK_AND_ASSIGN(const ParsedLine line, ParseLine(kGroups, {"a"}));
  EXPECT_FALSE(line.flags.Has("json"));
  EXPECT_FALSE(line.flags.Has("bits"));
}

TEST(FlagsTest, RefusesUnknownMissingAndRepeated) {
  EXPECT_THAT(ParseLine(kGroups, {"--no-such"}), FailsWith("USAGE", HasSubstr("--no-such")));
  EXPECT_THAT(ParseLine(kGroups, {"--out"}), FailsWith("USAGE", HasSubstr("out")));
  EXPECT_THAT(ParseLine(kGroups, {"--out", "x", "--out", "y"}),
              FailsWith("USAGE", HasSubstr("out")));
  EXPECT_THAT(ParseLine(kGroups, {"--json=maybe"}), FailsWith("USAGE", HasSubstr("json")));
}

TEST(FlagsTest, HelpWinsOverMistakes) {
  LWQ_ASSERT_OK_AND_ASSIGN(const ParsedLine line, ParseLine(kGroups, {"--help"}));
  EXPECT_TRUE(line.help);
}

TEST(FlagsTest, TypedValuesNameTheFlag) {
  Flags flags;
  flags.Set("threads", "0");
  EXPECT_THAT(flags.GetInt("threads", 1, 1, 64), FailsWith("FLAG_INVALID", HasSubstr("--threads")));
  flags.Set("memory", "2 gib");
  EXPECT_EQ(*flags.GetBytes("memory"), int64_t{2} << 30);
  flags.Set("memory", "2 gibberish");
  EXPECT_THAT(flags.GetBytes("memory"), FailsWith("FLAG_INVALID", HasSubstr("--memory")));
  flags.Set("eval-tasks", "a,,b");
  EXPECT_THAT(flags.GetList("eval-tasks"), FailsWith("FLAG_INVALID", HasSubstr("eval-tasks")));
  flags.Set("compute", "f64");
  EXPECT_THAT(flags.GetChoice("compute", {"f32", "bf16"}),
              FailsWith("FLAG_INVALID", HasSubstr("f32, bf16")));
}

}  // namespace
}  // namespace lwq::client
