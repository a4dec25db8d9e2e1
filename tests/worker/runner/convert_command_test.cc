#include "worker/runner/convert_command.h"

#include "base/file.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

// What works is tested with the engine (convert_test.cc).
TEST(ConvertCommandTest, SaysWhyNot) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory scratch, TempDirectory::Create());
  std::string json;
  EXPECT_FALSE(RunConvert({scratch.path(), "onnx", JoinPath(scratch.path(), "out")}, &json));
  EXPECT_EQ(nlohmann::json::parse(json)["reason"], "ARTIFACT_FORMAT_UNKNOWN");
  EXPECT_FALSE(RunConvert({scratch.path(), "gptq", JoinPath(scratch.path(), "out")}, &json));
  const auto said = nlohmann::json::parse(json);
  EXPECT_GT(said["code"], 0);
  EXPECT_NE(said["message"].get<std::string>().find("config.json"), std::string::npos);
}

}  // namespace
}  // namespace lwq
