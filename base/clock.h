// The one place where time comes from, so that tests can set it.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace lwq {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // The clock on the wall: what records and people are told. It may be set, both ways.
  virtual absl::Time Now() = 0;
  // Since some moment before the process began; only ever runs. Leases, waits and durations are
  // measured by it.
  virtual absl::Duration Steady() = 0;
  virtual void SleepFor(absl::Duration duration) = 0;
  // Waits until `changed` is signalled (true) or `timeout` has passed (false). Callers loop on
  // their condition.
  virtual bool WaitFor(CondVar& changed, Mutex* mu, absl::Duration timeout)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) = 0;

  // The machine's clock; lives for ever.
  static Clock* Real();
};

}  // namespace lwq
