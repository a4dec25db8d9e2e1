#include "base/clock.h"

#include <time.h>

namespace lwq {
namespace {

class RealClock : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
  absl::Duration Steady() override {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return absl::DurationFromTimespec(now);
  }
  // By the steady clock as well.
  void SleepFor(absl::Duration duration) override { absl::SleepFor(duration); }
  bool WaitFor(CondVar& changed, Mutex* mu, absl::Duration timeout) override {
    return changed.WaitFor(mu, timeout);
  }
};

}  // namespace

Clock* Clock::Real() {
  static RealClock* clock = new RealClock;
  return clock;
}

}  // namespace lwq
