// The worker's metrics: what it runs, where the time of its tasks goes, what memory it holds.
#pragma once

#include <atomic>
#include <string>

#include "absl/time/time.h"
#include "base/clock.h"
#include "base/metrics/metrics.h"
#include "base/metrics/process_metrics.h"
#include "base/mutex.h"
#include "proto/lwq/v1/task.pb.h"
#include "worker/runner/blob_access.h"

namespace lwq {

// Thread-safe.
class WorkerMetrics {
 public:
  // `device`: "cpu". `memory_bytes`: the ceiling that the worker keeps; 0: none.
  WorkerMetrics(const std::string& device, int64_t memory_bytes);

  void TaskStarted();
  // `outcome`: done, failed or released. `seconds` is the whole of it, transfers included.
  void TaskEnded(const v1::TaskSpec& spec, const std::string& outcome, double seconds,
                 int64_t peak_anonymous_bytes);
  // The process that runs tasks; 0: this one. Its memory counts with this one's.
  void SetChild(int pid) { child_ = pid; }
  void Moved(const std::string& stage, double seconds, int64_t bytes);  // fetch, upload

  void SetCertificateLife(double seconds);

  std::string Expose();

 private:
  Metrics metrics_;
  ProcessMetrics process_{metrics_};
  GaugeFamily* busy_;
  CounterFamily* tasks_;
  CounterFamily* stage_seconds_;
  CounterFamily* blob_bytes_;
  CounterFamily* tokens_;
  GaugeFamily* memory_;
  std::atomic<int> child_{0};
  GaugeFamily* certificate_life_;
  Mutex mu_;
  double moving_seconds_ ABSL_GUARDED_BY(mu_) = 0;  // of the task that runs
};

// A task's access to blobs, measured.
class MeasuredBlobs : public BlobAccess {
 public:
  // All outlive it.
  MeasuredBlobs(BlobAccess* blobs, WorkerMetrics* metrics, Clock* clock)
      : blobs_(blobs), metrics_(metrics), clock_(clock) {}

  absl::StatusOr<std::string> Fetch(const v1::BlobRef& blob) override;
  absl::StatusOr<v1::BlobRef> Store(const std::string& path, const std::string& sha256) override;
  std::string ScratchDirectory() const override { return blobs_->ScratchDirectory(); }

 private:
  BlobAccess* const blobs_;
  WorkerMetrics* const metrics_;
  Clock* const clock_;
};

}  // namespace lwq
