// The saved corpus through each reader: what libFuzzer found to reach another place, and what was
// once read wrongly.
#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "gtest/gtest.h"
#include "tests/fuzz/inputs.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

class CorpusTest : public ::testing::TestWithParam<FuzzInput> {};

TEST_P(CorpusTest, NoPromiseIsBroken) {
  const std::string folder =
      std::string(LWQ_SOURCE_DIR "/tests/fuzz/corpus/") + std::string(GetParam().name);
  int files = 0, accepted = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string input, ReadFile(entry.path(), 1 << 20));
    const absl::StatusOr<bool> tried = GetParam().try_input(input);
    ASSERT_OK(tried) << entry.path();
    ++files;
    accepted += *tried ? 1 : 0;
  }
  // The corpus is there, and goes past the first check.
  EXPECT_GT(files, 10);
  EXPECT_GT(accepted, 0);
}

INSTANTIATE_TEST_SUITE_P(Inputs, CorpusTest,
                         ::testing::ValuesIn(FuzzInputs().begin(), FuzzInputs().end()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace lwq::testing
