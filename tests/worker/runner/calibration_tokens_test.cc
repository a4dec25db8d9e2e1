#include "worker/runner/calibration_tokens.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::ElementsAre;

class CalibrationTokensTest : public ::testing::Test {
 protected:
  // The one token of the text under `key`, made of `value` if it has to be made.
  int32_t Get(const std::string& key, int32_t value) {
    auto tokens = kept_.Get(key, [&]() -> absl::StatusOr<TokenBatch> {
      ++made_;
      TokenBatch batch;
      batch.Add({value});
      return batch;
    });
    EXPECT_OK(tokens);
    EXPECT_THAT((*tokens)->tokens, ElementsAre(::testing::_));
    return (*tokens)->tokens.front();
  }
  CalibrationTokens kept_;
  int made_ = 0;
};

TEST_F(CalibrationTokensTest, ATextIsMadeOnceAndAnotherIsAnother) {
  EXPECT_EQ(Get("a", 1), 1);
  EXPECT_EQ(Get("b", 2), 2);
  EXPECT_EQ(Get("a", 3), 1);
  EXPECT_EQ(made_, 2);
}

TEST_F(CalibrationTokensTest, TheLongestUnusedGoes) {
  Get("used", 0);
  for (size_t i = 0; i < CalibrationTokens::kMaxTexts; ++i) {
    Get(std::string(1, static_cast<char>('a' + i)), 1);
    EXPECT_EQ(Get("used", 9), 0);
  }
  EXPECT_EQ(Get("a", 7), 7);
}

TEST_F(CalibrationTokensTest, AnErrorIsNotKept) {
  EXPECT_FALSE(kept_.Get("a", [] { return absl::UnavailableError("gone"); }).ok());
  EXPECT_EQ(Get("a", 1), 1);
}

}  // namespace
}  // namespace lwq::testing
