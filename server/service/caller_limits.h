// How much one caller may ask at a time, so that none takes the server from the others: calls that
// are open, uploads, and calls a second. Workers are not limited: their tasks limit them, and many
// share one certificate.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/service/guard.h"

namespace lwq {

struct CallerLimitsOptions {
  int open_calls = 500;
  int uploads = 64;             // of those
  double calls_per_second = 0;  // on average; twice as many at once. 0: any number
};

// Thread-safe.
class CallerLimits {
 public:
  // `clock` outlives this.
  CallerLimits(const CallerLimitsOptions& options, Clock* clock)
      : options_(options), clock_(clock) {}

  // Whether the caller may have one more. OK: Leave follows when the call has ended.
  // RESOURCE_EXHAUSTED "QUOTA_EXCEEDED" for what is open, UNAVAILABLE "OVERLOADED" for what comes
  // too fast: clients try again by themselves.
  absl::Status Enter(const Caller& caller, absl::string_view method);
  void Leave(const Caller& caller, absl::string_view method);

 private:
  struct Use {
    int open_calls = 0;
    int uploads = 0;
    double calls_left = 0;
    absl::Duration counted = -absl::InfiniteDuration();  // when calls_left was
  };
  absl::Status CountCall(const Caller& caller, Use& use) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const CallerLimitsOptions options_;
  Clock* const clock_;
  Mutex mu_;
  std::map<std::string, Use> uses_ ABSL_GUARDED_BY(mu_);  // by the caller's name
};

}  // namespace lwq
