// Parallel work that can fail, and room for it.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "base/thread_pool.h"

namespace lwq {

// Runs body(i) for each i in [0, count) on the pool; the failure with the lowest i is returned.
inline absl::Status RunAll(ThreadPool& pool, int64_t count,
                           const std::function<absl::Status(int64_t)>& body) {
  std::vector<absl::Status> results(static_cast<size_t>(count));
  pool.ParallelFor(count, [&](int64_t i) { results[static_cast<size_t>(i)] = body(i); });
  for (absl::Status& status : results) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Room for `count` floats on this thread until its next call: what was there is lost.
inline float* ThreadBuffer(int64_t count) {
  static thread_local std::vector<float> buffer;
  if (buffer.size() < static_cast<size_t>(count)) buffer.resize(static_cast<size_t>(count));
  return buffer.data();
}

}  // namespace lwq
