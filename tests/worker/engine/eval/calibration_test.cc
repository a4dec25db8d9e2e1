#include "worker/engine/eval/calibration.h"

#include <algorithm>
#include <numeric>

#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/eval/byte_tokenizer.h"

namespace lwq {
namespace {

using testing::ByteTokenizer;
using testing::FailsWith;
using ::testing::HasSubstr;

std::string Alphabet(int n) {
  std::string text(n, '\0');
  std::iota(text.begin(), text.end(), '\0');
  return text;
}

TEST(CalibrationTest, SpreadOrderIsAPermutationWithEvenPrefixes) {
  EXPECT_EQ(SpreadOrder(8), (std::vector<int64_t>{0, 4, 2, 6, 1, 5, 3, 7}));
  std::vector<int64_t> order = SpreadOrder(13);
  std::sort(order.begin(), order.end());
  std::vector<int64_t> all(13);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(order, all);
}

TEST(CalibrationTest, SequencesAreSpreadOverTheWholeText) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto sequences,
                           SampleCalibration(ByteTokenizer(false), {Alphabet(100)},
                                             {.num_tokens = 40, .sequence_length = 10}));
  ASSERT_EQ(sequences.size(), 4u);
  EXPECT_EQ(sequences[0][0], 0);
  EXPECT_EQ(sequences[1][0], 80);
  EXPECT_EQ(sequences[2][0], 40);
  EXPECT_EQ(sequences[3][9], 29);
}

TEST(CalibrationTest, ASmallerSampleIsTheBeginningOfALargerOne) {
  const ByteTokenizer tokenizer(false);
  LWQ_ASSERT_OK_AND_ASSIGN(
      auto large,
      SampleCalibration(tokenizer, {Alphabet(127)}, {.num_tokens = 90, .sequence_length = 10}));
  LWQ_ASSERT_OK_AND_ASSIGN(
      auto small,
      SampleCalibration(tokenizer, {Alphabet(127)}, {.num_tokens = 35, .sequence_length = 10}));
  ASSERT_EQ(small.size(), 3u);
  large.resize(3);
  EXPECT_EQ(small, large);
}

TEST(CalibrationTest, BosTakesTheFirstPlaceOfEachSequence) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto sequences,
                           SampleCalibration(ByteTokenizer(true), {Alphabet(100)},
                                             {.num_tokens = 20, .sequence_length = 10}));
  ASSERT_EQ(sequences.size(), 2u);
  for (const auto& sequence : sequences) {
    EXPECT_EQ(sequence.size(), 10u);
    EXPECT_EQ(sequence[0], 256);
  }
}

TEST(CalibrationTest, ShortTextGivesWhatItHas) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto sequences,
                           SampleCalibration(ByteTokenizer(false), {Alphabet(35)},
                                             {.num_tokens = 4096, .sequence_length = 10}));
  EXPECT_EQ(sequences.size(), 3u);
}

TEST(CalibrationTest, TextWithoutOneSequenceIsRefused) {
  EXPECT_THAT(SampleCalibration(ByteTokenizer(false), {"short"},
                                {.num_tokens = 4096, .sequence_length = 10}),
              FailsWith("CALIBRATION_INVALID", HasSubstr("5 tokens")));
}

}  // namespace
}  // namespace lwq
