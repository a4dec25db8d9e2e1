// How a calibration text is shared out.
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

v1::HeldOutText Sizes(int64_t score, int64_t trial, int64_t judge) {
  v1::HeldOutText sizes;
  sizes.set_score_tokens(score);
  sizes.set_trial_tokens(trial);
  sizes.set_judge_tokens(judge);
  return sizes;
}

TEST(HeldOutTest, PartsFollowEachOtherAndNothingIsInTwo) {
  const TokenBatch batch = BatchOf({3, 3, 3, 3, 3, 3});
  const HeldOut held_out(batch, 18, Sizes(3, 6, 3));
  EXPECT_THAT(held_out.fitted().tokens, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(held_out.rest().num_tokens(), 12);
  EXPECT_EQ(held_out.all().num_tokens(), 12);
  const HeldOutPart score = held_out.Part(HeldOutUse::kScore);
  EXPECT_THAT(score.batch.tokens, ElementsAre(6, 7, 8));
  EXPECT_EQ(score.first_row, 0);
  const HeldOutPart trial = held_out.Part(HeldOutUse::kTrial);
  EXPECT_THAT(trial.batch.tokens, ElementsAre(9, 10, 11, 12, 13, 14));
  EXPECT_THAT(Begins(trial.batch), ElementsAre(0, 3)) << "places are those of the new batch";
  EXPECT_EQ(trial.first_row, 3);
  const HeldOutPart judge = held_out.Part(HeldOutUse::kJudge);
  EXPECT_THAT(judge.batch.tokens, ElementsAre(15, 16, 17));
  EXPECT_EQ(judge.first_row, 9);
}

// The statistics of a layer are shared by jobs that hold out other amounts.
TEST(HeldOutTest, TheStatisticsTextDoesNotDependOnWhatIsHeldOut) {
  const TokenBatch longer = BatchOf({4, 4, 4, 4, 4, 2}), shorter = BatchOf({4, 4, 4, 2});
  const TokenBatch none = BatchOf({4, 4, 2});
  EXPECT_EQ(HeldOut(longer, 22, Sizes(4, 4, 4)).fitted().tokens.size(), 8u);
  EXPECT_EQ(HeldOut(shorter, 14, Sizes(4, 0, 0)).fitted().tokens.size(), 8u);
  EXPECT_EQ(HeldOut(none, 10, Sizes(0, 0, 0)).fitted().tokens.size(), 10u);
  EXPECT_EQ(HeldOut(none, 10, Sizes(0, 0, 0)).all().num_tokens(), 0);
}

TEST(HeldOutTest, SequencesThatDoNotFitWholeAreLeftOutButForOne) {
  const TokenBatch batch = BatchOf({4, 2, 4, 4});
  const HeldOut held_out(batch, 14, Sizes(0, 5, 1));
  EXPECT_EQ(held_out.Part(HeldOutUse::kJudge).batch.num_tokens(), 4);
  EXPECT_EQ(held_out.Part(HeldOutUse::kTrial).batch.num_tokens(), 4);
  EXPECT_EQ(held_out.Part(HeldOutUse::kScore).batch.num_tokens(), 0);
}

TEST(HeldOutTest, AShortTextServesAllUses) {
  const TokenBatch batch = BatchOf({4});
  const HeldOut held_out(batch, 4, Sizes(4, 4, 4));
  EXPECT_EQ(held_out.fitted().num_tokens(), 4);
  EXPECT_EQ(held_out.rest().num_tokens(), 0);
  for (HeldOutUse use : {HeldOutUse::kScore, HeldOutUse::kTrial, HeldOutUse::kJudge}) {
    EXPECT_THAT(held_out.Part(use).batch.tokens, ElementsAre(0, 1, 2, 3));
    EXPECT_EQ(held_out.Part(use).first_row, 0);
  }
  EXPECT_EQ(HeldOut(TokenBatch(), 4, Sizes(4, 4, 4)).all().num_tokens(), 0);
}

}  // namespace
}  // namespace lwq
