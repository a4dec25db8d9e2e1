#include "worker/engine/io/json_file.h"

#include "base/file.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::testing::_;
using testing::FailsWith;
using ::testing::HasSubstr;
using testing::StatusIs;

TEST(JsonFileTest, AcceptsOrdinaryJson) {
  EXPECT_OK(CheckJson(R"({"a": [1, 2.5, null, true], "b": {"a": "\u00e9"}} )", {}, "x"));
}

TEST(JsonFileTest, RefusesAKeyThatOccursTwiceAtAnyLevel) {
  EXPECT_THAT(CheckJson(R"({"a":1,"a":2})", {}, "x"),
              FailsWith("JSON_INVALID", HasSubstr("\"a\"")));
  EXPECT_THAT(CheckJson(R"({"o":[{"a":1,"a":2}]})", {}, "x"), FailsWith("JSON_INVALID", _));
  EXPECT_OK(CheckJson(R"({"a":{"a":1},"b":{"a":2}})", {}, "x"));
}

TEST(JsonFileTest, DepthIsCountedExactly) {
  JsonLimits limits;
  limits.max_depth = 3;
  limits.reason = "CONFIG_INVALID";
  EXPECT_OK(CheckJson("[[[1]]]", limits, "x"));
  EXPECT_THAT(CheckJson("[[[[1]]]]", limits, "x"),
              FailsWith("CONFIG_INVALID", HasSubstr("deeper")));
}

TEST(JsonFileTest, AMillionOpenBracketsAreRefusedWithoutRecursion) {
  EXPECT_THAT(CheckJson(std::string(1000000, '['), {}, "x"), FailsWith("JSON_INVALID", _));
}

TEST(JsonFileTest, RefusesWhatIsNotStrictJson) {
  for (const char* bad : {"", "{", "{}x", "{'a':1}", "{\"a\":1,}", "NaN", "// c\n{}", "\"\xff\""}) {
    EXPECT_THAT(CheckJson(bad, {}, "where"), FailsWith("JSON_INVALID", HasSubstr("where"))) << bad;
  }
}

TEST(JsonFileTest, ALargeFileIsRefusedBeforeItIsRead) {
  LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory dir, TempDirectory::Create());
  const std::string path = JoinPath(dir.path(), "a.json");
  ASSERT_OK(WriteFileAtomically(path, "[1,2,3]"));
  JsonLimits limits;
  limits.max_bytes = 6;
  EXPECT_THAT(ReadJsonFile(path, limits), FailsWith("JSON_INVALID", HasSubstr("a.json")));
  limits.max_bytes = 7;
  LWQ_ASSERT_OK_AND_ASSIGN(std::string text, ReadJsonFile(path, limits));
  EXPECT_EQ(text, "[1,2,3]");
  EXPECT_THAT(ReadJsonFile(path + "x", limits), StatusIs(absl::StatusCode::kNotFound, _));
}

}  // namespace
}  // namespace lwq
