// How a calibration text is shared out: the quantizer's sequences from the front, the scorer's from
// the back, whole ones only.
#include "worker/runner/task_input.h"

#include <numeric>

#include "gmock/gmock.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;

// Sequences of these lengths, with tokens 0, 1, 2, ...
TokenBatch BatchOf(const std::vector<int64_t>& lengths) {
  TokenBatch batch;
  int32_t next = 0;
  for (const int64_t length : lengths) {
    std::vector<int32_t> sequence(static_cast<size_t>(length));
    std::iota(sequence.begin(), sequence.end(), next);
    next += static_cast<int32_t>(length);
    batch.Add(sequence);
  }
  return batch;
}

std::vector<int64_t> Begins(const TokenBatch& batch) {
  std::vector<int64_t> begins;
  for (const Segment& segment : batch.segments) begins.push_back(segment.begin);
  return begins;
}

TEST(SequencesTest, LeadingAndTrailingOnesMeetWithoutOverlap) {
  const TokenBatch batch = BatchOf({3, 3, 3, 3});
  const TokenBatch leading = LeadingSequences(batch, 9);
  const TokenBatch trailing = TrailingSequences(batch, 3);
  EXPECT_THAT(leading.tokens, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_THAT(Begins(leading), ElementsAre(0, 3, 6));
  EXPECT_THAT(trailing.tokens, ElementsAre(9, 10, 11));
  EXPECT_THAT(Begins(trailing), ElementsAre(0)) << "places are those of the new batch";
}

TEST(SequencesTest, OnesThatDoNotFitWholeAreLeftOut) {
  const TokenBatch batch = BatchOf({4, 2, 4});
  EXPECT_EQ(LeadingSequences(batch, 9).num_tokens(), 6);
  EXPECT_EQ(LeadingSequences(batch, 10).num_tokens(), 10);
  EXPECT_EQ(TrailingSequences(batch, 9).num_tokens(), 6);
  EXPECT_EQ(TrailingSequences(batch, 10).num_tokens(), 10);
  EXPECT_EQ(TrailingSequences(batch, 100).num_tokens(), 10);
}

TEST(SequencesTest, AtLeastOneButForNothing) {
  const TokenBatch batch = BatchOf({4, 5});
  EXPECT_THAT(LeadingSequences(batch, 1).tokens, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(TrailingSequences(batch, 1).tokens, ElementsAre(4, 5, 6, 7, 8));
  EXPECT_EQ(TrailingSequences(batch, 0).num_tokens(), 0);
  EXPECT_EQ(LeadingSequences(TokenBatch(), 4).num_tokens(), 0);
  EXPECT_EQ(TrailingSequences(TokenBatch(), 4).num_tokens(), 0);
}

}  // namespace
}  // namespace lwq
