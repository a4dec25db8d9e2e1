// Times for the benchmarks: the best of several runs, since the machine is shared.
#pragma once

#include <algorithm>
#include <chrono>
#include <limits>

namespace lwq {

class Stopwatch {
 public:
  // Since construction or the last call.
  double Lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

template <typename Body>
double BestSeconds(int runs, const Body& body) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < runs; ++i) {
    Stopwatch watch;
    body();
    best = std::min(best, watch.Lap());
  }
  return best;
}

}  // namespace lwq
