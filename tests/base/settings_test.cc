#include "base/settings.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

const SettableFlag kFlags[] = {{.name = "data-dir"},
                               {.name = "json", .is_switch = true},
                               {.name = "model-root", .is_list = true}};

SettingsSource Source(std::map<std::string, std::string> variables, std::string file = "") {
  SettingsSource source;
  source.prefix = "LWQ_X_";
  source.environment = [variables](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  };
  source.file = std::move(file);
  source.file_name = "x.toml";
  source.section = "quantize";
  source.sections = {"quantize", "submit"};
  source.other_flags = {"budget"};
  return source;
}

Words Given(Words words, const SettingsSource& source) {
  return WithSettings(std::move(words), kFlags, source).value();
}

TEST(SettingsTest, LineThenEnvironmentThenFile) {
  const std::string file = "data-dir = \"/file\"\n";
  EXPECT_THAT(Given({}, Source({}, file)), ElementsAre("--data-dir=/file"));
  EXPECT_THAT(Given({}, Source({{"LWQ_X_DATA_DIR", "/env"}}, file)),
              ElementsAre("--data-dir=/env"));
  EXPECT_THAT(Given({"--data-dir", "/line"}, Source({{"LWQ_X_DATA_DIR", "/env"}}, file)),
              ElementsAre("--data-dir", "/line"));
  EXPECT_THAT(Given({"--data-dir=/line"}, Source({{"LWQ_X_DATA_DIR", "/env"}}, file)),
              ElementsAre("--data-dir=/line"));
  EXPECT_THAT(Given({}, Source({{"LWQ_X_DATA_DIR", ""}}, file)), ElementsAre("--data-dir=/file"));
}

TEST(SettingsTest, SwitchesAndLists) {
  EXPECT_THAT(Given({}, Source({{"LWQ_X_JSON", "1"}, {"LWQ_X_MODEL_ROOT", "/a,/b"}})),
              ElementsAre("--json", "--model-root=/a", "--model-root=/b"));
  EXPECT_THAT(Given({}, Source({{"LWQ_X_JSON", "off"}})), ElementsAre());
  EXPECT_THAT(Given({}, Source({}, "json = true\nmodel-root = [\"/a\", \"/b c\"]\n")),
              ElementsAre("--json", "--model-root=/a", "--model-root=/b c"));
  EXPECT_THAT(WithSettings({}, kFlags, Source({{"LWQ_X_JSON", "perhaps"}})),
              FailsWith("FLAG_INVALID", AllOf(HasSubstr("$LWQ_X_JSON"), HasSubstr("perhaps"))));
}

TEST(SettingsTest, ASectionGoesBeforeTheTopAndOthersAreLeftAlone) {
  const std::string file =
      "data-dir = \"/top\"\nbudget = \"4bpw\"\n[quantize]\ndata-dir = \"/own\"\n"
      "[submit]\nmodel-root = \"/theirs\"\n";
  EXPECT_THAT(Given({}, Source({}, file)), ElementsAre("--data-dir=/own"));
}

TEST(SettingsTest, AKeyThatIsNoFlagIsRefused) {
  EXPECT_THAT(WithSettings({}, kFlags, Source({}, "data_dir = \"/typo\"\n")),
              FailsWith("FLAG_INVALID", AllOf(HasSubstr("x.toml"), HasSubstr("--data_dir"))));
}

TEST(SettingsTest, ALineThatIsNoTomlIsSaidWithItsNumber) {
  for (const char* line :
       {"data-dir", "data-dir /x", "data-dir =", "data-dir = \"/x", "[quantize"}) {
    const std::string file = absl::StrCat("# mine\nbudget = \"4bpw\"\n", line, "\n");
    EXPECT_THAT(WithSettings({}, kFlags, Source({}, file)),
                FailsWith("FLAG_INVALID", AllOf(HasSubstr("x.toml, line 3: "), HasSubstr(line))))
        << line;
  }
  EXPECT_THAT(Given({}, Source({}, "data-dir = \"/a\"  # mine\n\n[quantize]\n")),
              ElementsAre("--data-dir=/a"));
}

TEST(SettingsTest, ASectionThatIsNoCommandIsRefused) {
  for (const char* file : {"[quantise]\ndata-dir = \"/typo\"\n", "[quantise]\n"}) {
    EXPECT_THAT(WithSettings({}, kFlags, Source({}, file)),
                FailsWith("FLAG_INVALID", AllOf(HasSubstr("[quantise]"), HasSubstr("submit"))));
  }
  SettingsSource without = Source({}, "[server]\n");
  without.sections.clear();
  EXPECT_THAT(WithSettings({}, kFlags, without),
              FailsWith("FLAG_INVALID", HasSubstr("put its keys at the top")));
}

TEST(SettingsTest, AKeyThatIsThereTwiceIsRefusedWithItsLine) {
  for (const char* between : {"", "budget = \"4bpw\"\n", "# a comment\n\n"}) {
    const std::string file = absl::StrCat("data-dir = \"/a\"\n", between, "data-dir = \"/b\"\n");
    EXPECT_THAT(WithSettings({}, kFlags, Source({}, file)),
                FailsWith("FLAG_INVALID",
                          AllOf(HasSubstr("x.toml, line "), HasSubstr("data-dir = \"/b\""))));
  }
  // Another section's is another key, and what is in a list is none.
  EXPECT_THAT(Given({}, Source({},
                               "data-dir = \"/a\"\n[quantize]\ndata-dir = \"/b\"\n"
                               "model-root = [\"/c\",\n  \"/c\"]\n")),
              ElementsAre("--data-dir=/b", "--model-root=/c", "--model-root=/c"));
}

TEST(SettingsTest, PlainArgumentsStayBehindTheirMark) {
  EXPECT_THAT(Given({"a", "--", "--data-dir"}, Source({{"LWQ_X_DATA_DIR", "/env"}})),
              ElementsAre("a", "--data-dir=/env", "--", "--data-dir"));
}

}  // namespace
}  // namespace lwq
