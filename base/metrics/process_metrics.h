// The standard process_* metrics, under the names that every Prometheus client library gives them.
#pragma once

#include "base/metrics/metrics.h"
#include "base/mutex.h"

namespace lwq {

class ProcessMetrics {
 public:
  explicit ProcessMetrics(Metrics& metrics);  // outlives this

  // Reads /proc/self; call before each exposition. Thread-safe.
  void Update();

 private:
  CounterFamily* cpu_seconds_;
  GaugeFamily* resident_bytes_;
  GaugeFamily* open_files_;
  GaugeFamily* threads_;
  Mutex mu_;
  double counted_cpu_seconds_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace lwq
