#include "base/retry.h"

#include <vector>

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using testing::StatusIs;
using ::testing::_;

// Time passes only by sleeping.
class SleepingClock : public Clock {
 public:
  absl::Time Now() override { return absl::UnixEpoch() + now_; }
  absl::Duration Steady() override { return now_; }
  void SleepFor(absl::Duration duration) override {
    slept.push_back(duration);
    now_ += duration;
  }
  bool WaitFor(CondVar&, Mutex*, absl::Duration) override { return false; }

  std::vector<absl::Duration> slept;

 private:
  absl::Duration now_ = absl::Hours(1);
};

const absl::Status kAway = absl::UnavailableError("away");

TEST(RetryTest, WaitsDoubleUpToTheLongest) {
  const RetryPolicy policy = {.first_wait = absl::Seconds(1), .longest_wait = absl::Seconds(6)};
  std::vector<absl::Duration> waits;
  for (int i : {-1, 0, 1, 2, 3, 31, 1'000'000}) waits.push_back(WaitAfter(policy, i));
  EXPECT_THAT(waits, ::testing::ElementsAre(absl::Seconds(1), absl::Seconds(1), absl::Seconds(2),
                                            absl::Seconds(4), absl::Seconds(6), absl::Seconds(6),
                                            absl::Seconds(6)));
}

TEST(RetryTest, ChanceTakesUpToHalfOfAWait) {
  bool differ = false;
  const absl::Duration first = WithJitter(absl::Seconds(8));
  for (int i = 0; i < 100; ++i) {
    const absl::Duration wait = WithJitter(absl::Seconds(8));
    EXPECT_GE(wait, absl::Seconds(4));
    EXPECT_LE(wait, absl::Seconds(8));
    differ |= wait != first;
  }
  EXPECT_TRUE(differ);
}

TEST(RetryTest, TriesAreCountedInARow) {
  SleepingClock clock;
  Retry retry({.first_wait = absl::Seconds(1), .tries = 3}, &clock);
  EXPECT_OK(retry.BeforeRetry(kAway));
  EXPECT_OK(retry.BeforeRetry(kAway));
  retry.Reset();
  EXPECT_OK(retry.BeforeRetry(kAway));
  EXPECT_OK(retry.BeforeRetry(kAway));
  EXPECT_THAT(retry.BeforeRetry(kAway), StatusIs(absl::StatusCode::kUnavailable, "away"));
  ASSERT_EQ(clock.slept.size(), 4u);
  EXPECT_LE(clock.slept[2], absl::Seconds(1));  // they began anew
  EXPECT_GE(clock.slept[3], absl::Seconds(1));
}

TEST(RetryTest, NoWaitGoesBeyondTheTime) {
  SleepingClock clock;
  Retry retry({.first_wait = absl::Seconds(1), .time = absl::Seconds(10)}, &clock);
  const absl::Duration start = clock.Steady();
  while (retry.BeforeRetry(kAway).ok()) continue;
  EXPECT_LE(clock.Steady() - start, absl::Seconds(10));
  EXPECT_GE(clock.Steady() - start, absl::Seconds(2));
  retry.Reset();
  EXPECT_OK(retry.BeforeRetry(kAway));
}

TEST(RetryTest, WhatDoesNotPassByItselfIsGivenUpAtOnce) {
  SleepingClock clock;
  Retry retry({}, &clock);
  EXPECT_THAT(retry.BeforeRetry(absl::NotFoundError("gone")),
              StatusIs(absl::StatusCode::kNotFound, "gone"));
  Retry patient({.is_transient = [](const absl::Status& s) { return absl::IsNotFound(s); }},
                &clock);
  EXPECT_OK(patient.BeforeRetry(absl::NotFoundError("gone")));
  EXPECT_EQ(clock.slept.size(), 1u);
}

TEST(RetryTest, StopsWhenAsked) {
  SleepingClock clock;
  Retry retry({}, &clock, [](const absl::Status& failed) {
    return absl::CancelledError(failed.message());
  });
  EXPECT_THAT(retry.BeforeRetry(kAway), StatusIs(absl::StatusCode::kCancelled, "away"));
  EXPECT_TRUE(clock.slept.empty());
}

TEST(RetryTest, SomethingElseMayBeWaitedFor) {
  SleepingClock clock;
  std::vector<absl::Duration> waited;
  Retry retry({.first_wait = absl::Seconds(2)}, &clock, nullptr,
              [&](absl::Duration wait) { waited.push_back(wait); });
  retry.Wait();
  EXPECT_OK(retry.BeforeRetry(kAway));
  EXPECT_EQ(waited.size(), 2u);
  EXPECT_TRUE(clock.slept.empty());
}

}  // namespace
}  // namespace lwq
