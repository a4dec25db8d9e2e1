#include "base/clock.h"

#include <thread>

#include "gtest/gtest.h"
#include "tests/testing/simulated_clock.h"

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

// Between two looks at the time a waiter hears no signal: what a signal told it has to see.
TEST(SimulatedClockTest, AWaiterSeesWhatHasChangedThoughNoSignalReachedIt) {
  SimulatedClock clock;
  Mutex mu;
  CondVar changed;
  bool done = false, seen = false;
  const absl::Duration before = clock.Steady();
  const auto change = [&] {
    {
      MutexLock lock(&mu);  // which is free once the other waits
      done = true;
    }
    for (int i = 0; i < 1000; ++i) {
      absl::SleepFor(absl::Milliseconds(10));
      MutexLock lock(&mu);
      if (seen) return;
    }
    clock.Advance(absl::Hours(2));  // or it would wait for ever
  };
  std::thread changes;
  {
    MutexLock lock(&mu);
    changes = std::thread(change);
    while (!done) clock.WaitFor(changed, &mu, absl::Hours(1));
    seen = true;
    EXPECT_EQ(clock.Steady(), before);
  }
  changes.join();
}

TEST(SimulatedClockTest, AWaitEndsWhenTheTimeIsMoved) {
  SimulatedClock clock;
  Mutex mu;
  CondVar changed;
  const absl::Duration end = clock.Steady() + absl::Minutes(1);
  std::thread moves([&] { clock.Advance(absl::Hours(1)); });
  {
    MutexLock lock(&mu);
    while (clock.Steady() < end) clock.WaitFor(changed, &mu, end - clock.Steady());
    EXPECT_FALSE(clock.WaitFor(changed, &mu, absl::ZeroDuration()));
  }
  moves.join();
}

}  // namespace
}  // namespace lwq::testing
