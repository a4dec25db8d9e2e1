// Trying again what failed for a while: how long to wait, how often, after which failures.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/failure.h"

namespace lwq {

struct RetryPolicy {
  absl::Duration first_wait = absl::Milliseconds(100);  // twice as long after each failure,
  absl::Duration longest_wait = absl::Seconds(10);      // up to this
  // What may fail in a row before it is given up: so many tries (0: any number), for so long.
  int tries = 0;
  absl::Duration time = absl::InfiniteDuration();
  bool (*is_transient)(const absl::Status&) = IsRetryable;  // others are given up at once
};

// The wait after `failures` failures in a row, counted from 0: what the policy says, without chance.
absl::Duration WaitAfter(const RetryPolicy& policy, int failures);
// From half of `wait` to all of it: clients that failed together do not come back together.
absl::Duration WithJitter(absl::Duration wait);

// One operation's tries. Not thread-safe.
class Retry {
 public:
  // Asked with the failure before each further try; an error ends the tries with it.
  using MayGoOn = std::function<absl::Status(const absl::Status&)>;
  // Replaces the clock's sleep, where something better is there to wait for.
  using Sleep = std::function<void(absl::Duration)>;

  Retry(const RetryPolicy& policy, Clock* clock, MayGoOn may_go_on = nullptr,
        Sleep sleep = nullptr);
  // Waits and is OK where the operation is to be tried again after it failed with `status`. Else
  // the error to return: `status`, or what may_go_on said.
  absl::Status BeforeRetry(const absl::Status& status);
  // Counts a failure and waits, whatever the policy allows.
  void Wait();
  // The operation got on: tries, time and waits begin anew.
  void Reset();

 private:
  const RetryPolicy policy_;
  Clock* const clock_;
  const MayGoOn may_go_on_;
  const Sleep sleep_;
  int failures_ = 0;
  absl::Duration give_up_;
};

}  // namespace lwq
