#include "base/clock.h"

#include <thread>

#include "gtest/gtest.h"

namespace lwq::testing {
namespace {

TEST(RealClockTest, RunsAndSleepsAtLeastAsLongAsItIsAsked) {
  Clock* clock = Clock::Real();
  const absl::Duration before = clock->Steady();
  clock->SleepFor(absl::Milliseconds(20));
  EXPECT_GE(clock->Steady() - before, absl::Milliseconds(20));
  EXPECT_GT(clock->Now(), absl::FromUnixSeconds(1700000000));
}

TEST(RealClockTest, AWaitEndsByItsTimeOrByASignal) {
  Clock* clock = Clock::Real();
  Mutex mu;
  CondVar changed;
  {
    MutexLock lock(&mu);
    const absl::Duration before = clock->Steady();
    while (clock->WaitFor(changed, &mu, absl::Milliseconds(20))) continue;  // woken for nothing
    EXPECT_GE(clock->Steady() - before, absl::Milliseconds(15));
  }
  bool done = false;
  std::thread signals([&] {
    MutexLock lock(&mu);
    done = true;
    changed.SignalAll();
  });
  {
    MutexLock lock(&mu);
    const absl::Duration end = clock->Steady() + absl::Seconds(20);
    while (!done && clock->Steady() < end) clock->WaitFor(changed, &mu, absl::Seconds(20));
    EXPECT_LT(clock->Steady(), end);
  }
  signals.join();
}

}  // namespace
}  // namespace lwq::testing
