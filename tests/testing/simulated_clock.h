// Time that stands still until a test moves it.
#pragma once

#include "absl/time/clock.h"
#include "base/clock.h"

namespace lwq::testing {

// Thread-safe.
class SimulatedClock : public Clock {
 public:
  absl::Time Now() override {
    MutexLock lock(&mu_);
    return wall_;
  }
  absl::Duration Steady() override {
    MutexLock lock(&mu_);
    return steady_;
  }
  void SleepFor(absl::Duration duration) override {
    const absl::Duration end = Steady() + duration;
    while (Steady() < end) absl::SleepFor(kPoll);
  }
  // Waits a short real step, so that nobody who waits has to be known to Advance. The caller has to
  // look at its condition after each: a signal that comes between the end of a step and the return
  // of its mutex reaches nobody.
  bool WaitFor(CondVar& changed, Mutex* mu, absl::Duration timeout) override {
    absl::Duration end;
    {
      MutexLock lock(&mu_);
      looked_ = steady_;
      end = steady_ + timeout;
    }
    return changed.WaitFor(mu, kPoll) || Steady() < end;
  }

  // The time at which a wait last began or went on: whoever waits in a loop, and is alone in that,
  // has done by then what was due a step before.
  absl::Duration looked() {
    MutexLock lock(&mu_);
    return looked_;
  }

  // Both clocks run on.
  void Advance(absl::Duration duration) {
    MutexLock lock(&mu_);
    steady_ += duration;
    wall_ += duration;
  }
  // Somebody sets the clock on the wall.
  void JumpWall(absl::Duration duration) {
    MutexLock lock(&mu_);
    wall_ += duration;
  }

 private:
  static constexpr absl::Duration kPoll = absl::Milliseconds(1);
  Mutex mu_;
  absl::Time wall_ ABSL_GUARDED_BY(mu_) = absl::FromUnixSeconds(1'800'000'000);
  absl::Duration steady_ ABSL_GUARDED_BY(mu_) = absl::Hours(1);
  absl::Duration looked_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lwq::testing
