#include "server/dispatch/failure_policy.h"

#include <string>

#include "base/reasons.h"
#include "gtest/gtest.h"

namespace lwq {
namespace {

v1::Failure Of(const Reason& reason) {
  v1::Failure failure;
  failure.set_reason(std::string(reason.name));
  return failure;
}

TEST(FailurePolicyTest, AFaultOfTheInputIsNotTriedAgain) {
  const RetryDecision decision = DecideRetry({}, Of(reasons::kNonFiniteWeights));
  EXPECT_FALSE(decision.again);
  EXPECT_FALSE(decision.lost_inputs);
}

// One worker's word fails no job: two have to blame the input, all what may be their own
// surroundings.
TEST(FailurePolicyTest, OneWorkersWordIsNotEnough) {
  v1::TaskRecord task;
  EXPECT_TRUE(DecideRetry(task, Of(reasons::kNonFiniteWeights)).elsewhere);
  EXPECT_TRUE(DecideRetry(task, Of(reasons::kNonFiniteWeights)).exclude);
  EXPECT_TRUE(DecideRetry(task, Of(reasons::kModelChanged)).elsewhere);
  task.add_excluded("one");
  EXPECT_FALSE(DecideRetry(task, Of(reasons::kNonFiniteWeights)).elsewhere);
  EXPECT_TRUE(DecideRetry(task, Of(reasons::kModelChanged)).elsewhere);
  EXPECT_FALSE(DecideRetry(task, Of(reasons::kOverloaded)).exclude) << "no worker's fault";
}

// As with workers that are lost with their task.
TEST(FailurePolicyTest, ATaskThatCrashesIsToBlameWhenItDoesOnThreeWorkers) {
  v1::TaskRecord task;
  EXPECT_TRUE(DecideRetry(task, Of(reasons::kTaskCrashed)).again) << "where there is one alone";
  EXPECT_TRUE(DecideRetry(task, Of(reasons::kTaskCrashed)).exclude);
  task.set_attempt(2);
  task.add_excluded("one");
  EXPECT_FALSE(DecideRetry(task, Of(reasons::kTaskCrashed)).again);
  EXPECT_TRUE(DecideRetry(task, Of(reasons::kTaskCrashed)).elsewhere);
  task.add_excluded("two");
  EXPECT_FALSE(DecideRetry(task, Of(reasons::kTaskCrashed)).elsewhere);
}

TEST(FailurePolicyTest, HostMemoryThatRanOutIsTriedOnceMore) {
  v1::TaskRecord task;
  EXPECT_TRUE(DecideRetry(task, Of(reasons::kHostOom)).again);
  EXPECT_TRUE(DecideRetry(task, Of(reasons::kHostOom)).counts);
  task.set_attempt(1);
  EXPECT_FALSE(DecideRetry(task, Of(reasons::kHostOom)).again);
}

TEST(FailurePolicyTest, WhatPassesByItselfWaitsTwiceAsLongEachTime) {
  v1::TaskRecord task;
  task.set_attempt(100);  // of no matter
  for (int i = 0; i < 10; ++i) {
    task.set_transient_count(i);
    const RetryDecision decision = DecideRetry(task, Of(reasons::kOverloaded));
    EXPECT_TRUE(decision.again) << i;
    EXPECT_FALSE(decision.counts);
    EXPECT_EQ(decision.delay, i < 6 ? absl::Seconds(1 << i) : absl::Seconds(60)) << i;
  }
  task.set_transient_count(10);
  EXPECT_FALSE(DecideRetry(task, Of(reasons::kOverloaded)).again);
}

// A full disk is not waited for until somebody presses Ctrl-C: the job ends within half a minute.
TEST(FailurePolicyTest, AFullDiskIsGivenUpSoon) {
  v1::TaskRecord task;
  absl::Duration waited;
  while (DecideRetry(task, Of(reasons::kStorageFull)).again) {
    waited += DecideRetry(task, Of(reasons::kStorageFull)).delay;
    task.set_transient_count(task.transient_count() + 1);
  }
  EXPECT_GE(waited, absl::Seconds(5));
  EXPECT_LE(waited, absl::Seconds(30));
}

TEST(FailurePolicyTest, ALostInputIsMadeAgain) {
  for (const Reason* reason : {&reasons::kBlobMissing, &reasons::kBlobCorrupt}) {
    const RetryDecision decision = DecideRetry({}, Of(*reason));
    EXPECT_TRUE(decision.lost_inputs);
    EXPECT_FALSE(decision.counts);
  }
}

TEST(FailurePolicyTest, AReasonOfANewerWorkerGoesByWhatItSays) {
  v1::Failure failure;
  failure.set_reason("NOT_KNOWN_HERE");
  EXPECT_FALSE(DecideRetry({}, failure).again);
  failure.set_retryable(true);
  EXPECT_TRUE(DecideRetry({}, failure).again);
}

TEST(FailurePolicyTest, ATaskThatTakesDownEveryWorkerIsPoison) {
  v1::TaskRecord task;
  EXPECT_FALSE(IsPoison(task));
  task.set_lost_count(kMaxLosses);
  EXPECT_TRUE(IsPoison(task));
  task.set_lost_count(kMaxDistinctWorkersLost);
  for (const char* worker : {"a", "b", "c"}) task.add_lost_workers(worker);
  EXPECT_TRUE(IsPoison(task));
}

TEST(FailurePolicyTest, TheReasonSaysWhoCanMendIt) {
  EXPECT_EQ(BlameOf("NON_FINITE_WEIGHTS", 0), v1::Failure::MODEL);
  EXPECT_EQ(BlameOf("HOST_OOM", 0), v1::Failure::CAPACITY);
  EXPECT_EQ(BlameOf("BUDGET_INFEASIBLE", 0), v1::Failure::USER);
  EXPECT_EQ(BlameOf("NOT_KNOWN_HERE", static_cast<int>(absl::StatusCode::kDataLoss)),
            v1::Failure::MODEL);
}

}  // namespace
}  // namespace lwq
