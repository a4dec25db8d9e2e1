#include "client/output_format.h"

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

TEST(OutputFormatTest, YamlIsBlocks) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const std::string yaml,
      JsonToYaml(R"({"name": "jobs/j-1", "layer": 0, "ok": true, "labels": {}, "none": [],
                     "phases": [{"phase": "SCORE", "seconds": 1.5}, {"phase": "PLAN"}],
                     "list": [[1, 2], "a b"]})"));
  EXPECT_EQ(yaml,
            "name: jobs/j-1\n"
            "layer: 0\n"
            "ok: true\n"
            "labels: {}\n"
            "none: []\n"
            "phases:\n"
            "  - phase: SCORE\n"
            "    seconds: 1.5\n"
            "  - phase: PLAN\n"
            "list:\n"
            "  -\n"
            "    - 1\n"
            "    - 2\n"
            "  - \"a b\"\n");
}

// Strings that YAML would take for something else, or for the end of a line, are quoted.
TEST(OutputFormatTest, StringsStayStrings) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const std::string yaml,
      JsonToYaml(R"({"a": "true", "b": "12", "c": "", "d": "x: y", "e": "l\nm", "f": "nan",
                     "g": "# no", "no": "- x"})"));
  EXPECT_EQ(yaml,
            "a: \"true\"\nb: \"12\"\nc: \"\"\nd: \"x: y\"\ne: \"l\\nm\"\nf: \"nan\"\ng: \"# no\"\n"
            "\"no\": \"- x\"\n");
}

TEST(OutputFormatTest, SeveralTextsAreSeveralDocuments) {
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string yaml, JsonToYaml("{\"a\": \"}\"}\n{\"b\": 2}\n"));
  EXPECT_EQ(yaml, "---\na: \"}\"\n---\nb: 2\n");
  EXPECT_FALSE(JsonToYaml("no json").ok());
  EXPECT_FALSE(JsonToYaml("{\"a\": 1").ok());
}

TEST(OutputFormatTest, NamesAlone) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const std::string names,
      NamesInJson(R"({"jobs": [{"name": "jobs/j-1", "plan": {"name": "x"}}, {"name": "j-2"}],
                      "next_page_token": ""})"));
  EXPECT_EQ(names, "j-1\nj-2\n");
  EXPECT_EQ(*NamesInJson(R"({"name": "models/m", "files": [{"name": "f"}]})"), "m\n");
  EXPECT_EQ(*NamesInJson(R"([{"name": "prod"}, {"name": "test"}])"), "prod\ntest\n");
  EXPECT_EQ(*NamesInJson(R"({"jobs": []})"), "");
}

TEST(OutputFormatTest, TasksAreCalledByTheirKeys) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const std::string names,
      NamesInJson(R"({"tasks": [{"task": "3f2a", "kind": "score"}, {"task": "90c1"}]})"));
  EXPECT_EQ(names, "3f2a\n90c1\n");
}

}  // namespace
}  // namespace lwq::client
