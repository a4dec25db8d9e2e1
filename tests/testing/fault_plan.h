// Which calls of a failing wrapper fail: the n-th, all from the n-th on, or some in the order that
// a seed gives. A call fails before it has done anything, or after: done, and the caller not told.
#pragma once

#include <cstdint>
#include <functional>
#include <random>

#include "base/mutex.h"

namespace lwq::testing {

enum class Fault { kNone, kBefore, kAfter };

// Thread-safe.
class FaultPlan {
 public:
  // `decide` gets the number of the call, from 1.
  explicit FaultPlan(std::function<Fault(int call)> decide) : decide_(std::move(decide)) {}

  Fault Next() {
    MutexLock lock(&mu_);
    const Fault fault = decide_(++num_calls_);
    if (fault != Fault::kNone) ++num_faults_;
    return fault;
  }
  // A test whose faults never came has tested nothing.
  int num_faults() const {
    MutexLock lock(&mu_);
    return num_faults_;
  }

 private:
  mutable Mutex mu_;
  const std::function<Fault(int)> decide_ ABSL_GUARDED_BY(mu_);
  int num_calls_ ABSL_GUARDED_BY(mu_) = 0;
  int num_faults_ ABSL_GUARDED_BY(mu_) = 0;
};

inline std::function<Fault(int)> NoFaults() {
  return [](int) { return Fault::kNone; };
}

inline std::function<Fault(int)> FailNth(int n, Fault fault) {
  return [=](int call) { return call == n ? fault : Fault::kNone; };
}

inline std::function<Fault(int)> FailFrom(int n, Fault fault) {
  return [=](int call) { return call >= n ? fault : Fault::kNone; };
}

// About `share` of the calls, half of these before and half after.
inline std::function<Fault(int)> FailSome(uint64_t seed, double share) {
  return [random = std::mt19937_64(seed), share](int) mutable {
    const double x = std::uniform_real_distribution<double>(0, 1)(random);
    return x >= share ? Fault::kNone : x < share / 2 ? Fault::kBefore : Fault::kAfter;
  };
}

}  // namespace lwq::testing
