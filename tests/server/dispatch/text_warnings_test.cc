#include "server/dispatch/text_warnings.h"

#include "gmock/gmock.h"

namespace lwq::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TextWarningsTest : public ::testing::Test {
 protected:
  TextWarningsTest() {
    v1::Calibration& asked = *input_.spec.mutable_quantize()->mutable_calibration();
    asked.set_dataset("datasets/own");
    asked.set_num_tokens(1000);
    asked.set_score_tokens(100);
    asked.set_trial_tokens(200);
    asked.set_judge_tokens(300);
    input_.method.set_needs_calibration(true);
    input_.max_trials = 10;
    SetBytes(4 * 1600);
  }
  void SetBytes(int64_t bytes) {
    input_.datasets["datasets/own"].mutable_blob()->set_size_bytes(bytes);
  }

  GraphInput input_;
};

TEST_F(TextWarningsTest, ATextThatIsTooShortForItsPartsIsNamed) {
  EXPECT_THAT(TextWarnings(input_), IsEmpty());
  SetBytes(4 * 1599);
  EXPECT_THAT(TextWarnings(input_),
              ElementsAre(HasSubstr("datasets/own has about 1599 tokens and the job wants 1600")));
}

TEST_F(TextWarningsTest, OnlyWhatTheJobReadsCounts) {
  SetBytes(4 * 1000);
  EXPECT_THAT(TextWarnings(input_), ElementsAre(HasSubstr("wants 1600")));
  input_.max_trials = 0;
  EXPECT_THAT(TextWarnings(input_), ElementsAre(HasSubstr("wants 1100")));
  input_.scores_needed = false;
  EXPECT_THAT(TextWarnings(input_), IsEmpty());
  SetBytes(0);
  input_.method.set_needs_calibration(false);  // nothing is read
  EXPECT_THAT(TextWarnings(input_), IsEmpty());
}

}  // namespace
}  // namespace lwq::testing
