#include "worker/runner/model_check.h"

#include <filesystem>

#include "base/file.h"
#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::testing::HasSubstr;

std::string StateOf(const std::vector<ModelCheck>& checks, const std::string& name) {
  for (const ModelCheck& check : checks) {
    if (check.name == name) return check.state;
  }
  return "absent";
}

// A copy of the bundled model that a test may spoil.
class ModelCheckTest : public ::testing::Test {
 protected:
  ModelCheckTest() : directory_(*TempDirectory::Create()) {
    std::filesystem::copy(LWQ_SAMPLE_MODEL, model(), std::filesystem::copy_options::recursive);
  }
  std::string model() const { return JoinPath(directory_.path(), "model"); }
  std::string file(const std::string& name) const { return JoinPath(model(), name); }

  TempDirectory directory_;
};

TEST_F(ModelCheckTest, AGoodModelPasses) {
  const std::vector<ModelCheck> checks = CheckModel(model());
  for (const char* name : {"config", "weights", "tensors", "tokenizer", "gguf"}) {
    EXPECT_EQ(StateOf(checks, name), "ok") << name;
  }
  EXPECT_TRUE(AllPassed(checks));
  // One JSON object a line, however it is read.
  const std::string text = ModelChecksJson(checks);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), static_cast<int>(checks.size()));
  EXPECT_EQ(nlohmann::json::parse(text.substr(0, text.find('\n')))["name"], "config");
}

TEST_F(ModelCheckTest, SaysWhatIsWrongAndWhatToDo) {
  ASSERT_TRUE(std::filesystem::remove(file("tokenizer.json")));
  ASSERT_TRUE(std::filesystem::remove(file("tokenizer.model")));
  std::vector<ModelCheck> checks = CheckModel(model());
  EXPECT_EQ(StateOf(checks, "weights"), "ok");
  EXPECT_EQ(StateOf(checks, "tokenizer"), "fail");
  EXPECT_FALSE(AllPassed(checks));
  EXPECT_THAT(checks.back().detail, HasSubstr("TOKENIZER_MISSING"));
  EXPECT_THAT(checks.back().advice, HasSubstr("tokenizer.json"));
  ASSERT_OK(WriteFileAtomically(file("config.json"), R"({"architectures": ["Strange"]})"));
  checks = CheckModel(model());
  ASSERT_EQ(checks.size(), 1u);  // nothing further can be said
  EXPECT_EQ(checks[0].state, "fail");
}

TEST_F(ModelCheckTest, ACutWeightFileIsSeen) {
  std::string weights;
  for (const auto& entry : std::filesystem::directory_iterator(model())) {
    if (entry.path().extension() == ".safetensors") weights = entry.path();
  }
  ASSERT_FALSE(weights.empty());
  std::filesystem::resize_file(weights, std::filesystem::file_size(weights) - 1);
  const std::vector<ModelCheck> checks = CheckModel(model());
  EXPECT_EQ(StateOf(checks, "config"), "ok");
  EXPECT_EQ(StateOf(checks, "weights"), "fail");
  EXPECT_EQ(StateOf(checks, "tensors"), "absent");
}

}  // namespace
}  // namespace lwq
