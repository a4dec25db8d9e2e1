// Keeps one lease alive while its task computes: a thread that sends heartbeats, takes the server's
// directives and samples the anonymous memory of the process that
// runs it.
#pragma once

#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "proto/lwq/v1/worker_service.grpc.pb.h"

namespace lwq {

class LeaseKeeper {
 public:
  // `stub` and `clock` must outlive it. Sends the first heartbeat after one interval. `child`: the
  // process that runs the task; 0: this one.
  LeaseKeeper(v1::WorkerService::Stub* stub, std::string worker_id, std::string incarnation,
              const v1::Lease& lease, absl::Duration interval, Clock* clock, int child = 0);
  ~LeaseKeeper();

  // Called by the task. CANCELLED when nobody wants the result any more, ABORTED "LEASE_LOST" when
  // another worker has the task.
  absl::Status Progress(double fraction, const std::string& current);
  // Why the task does not get on, told to the server at once; "" when it does again. Thread-safe.
  void WaitsFor(const std::string& what);
  // Makes Progress return CANCELLED from now on.
  void Cancel();

  int64_t peak_anonymous_bytes();

 private:
  void Loop();
  void Beat();
  void CountBusy();

  v1::WorkerService::Stub* const stub_;
  const std::string worker_id_;
  const std::string incarnation_;
  const std::string task_;
  const int64_t epoch_;
  const absl::Duration interval_;
  Clock* const clock_;
  const int child_;

  Mutex mu_;
  CondVar wake_;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status verdict_ ABSL_GUARDED_BY(mu_);
  int64_t progress_ ABSL_GUARDED_BY(mu_) = 0;
  double fraction_ ABSL_GUARDED_BY(mu_) = 0;
  std::string current_ ABSL_GUARDED_BY(mu_);
  std::string waits_for_ ABSL_GUARDED_BY(mu_);
  bool beat_now_ ABSL_GUARDED_BY(mu_) = false;
  int64_t peak_anonymous_bytes_ ABSL_GUARDED_BY(mu_) = 0;

  // The thread's own.
  double busy_seconds_ = 0;
  double cpu_seconds_;
  absl::Duration cpu_looked_;

  std::thread thread_;  // last: starts when all else is there
};

}  // namespace lwq
