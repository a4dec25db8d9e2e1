#include "worker/lease_keeper.h"

#include <time.h>

#include <algorithm>

#include "base/failpoint.h"
#include "base/memory_usage.h"
#include "base/reasons.h"
#include "base/rpc/grpc_status.h"
#include "base/rpc/timeout.h"

namespace lwq {
namespace {

constexpr absl::Duration kMemorySampleInterval = absl::Milliseconds(100);
// Of a core, between two heartbeats: below it the process only waits, and this thread's own
// sampling is not work.
constexpr double kBusyShare = 0.2;

double SecondsOf(clockid_t clock) {
  timespec used = {};
  clock_gettime(clock, &used);
  return static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
}

// Of all threads of this process, and of the child's.
double CpuSeconds(int child) {
  const double own = SecondsOf(CLOCK_PROCESS_CPUTIME_ID);
  clockid_t of_child = 0;
  if (child == 0 || clock_getcpuclockid(child, &of_child) != 0) return own;
  return own + SecondsOf(of_child);
}

}  // namespace

LeaseKeeper::LeaseKeeper(v1::WorkerService::Stub* stub, std::string worker_id,
                         std::string incarnation, const v1::Lease& lease, absl::Duration interval,
                         Clock* clock, int child)
    : stub_(stub),
      worker_id_(std::move(worker_id)),
      incarnation_(std::move(incarnation)),
      task_(lease.task()),
      epoch_(lease.epoch()),
      interval_(interval),
      clock_(clock),
      child_(child),
      cpu_seconds_(CpuSeconds(child)),
      cpu_looked_(clock->Steady()),
      thread_([this] { Loop(); }) {}

LeaseKeeper::~LeaseKeeper() {
  {
    MutexLock lock(&mu_);
    done_ = true;
  }
  wake_.SignalAll();
  thread_.join();
}

absl::Status LeaseKeeper::Progress(double fraction, const std::string& current) {
  MutexLock lock(&mu_);
  ++progress_;
  fraction_ = std::max(fraction_, fraction);
  current_ = current;
  return verdict_;
}

void LeaseKeeper::WaitsFor(const std::string& what) {
  MutexLock lock(&mu_);
  // That it waits is told at once, what changes of it with the next heartbeat.
  beat_now_ = beat_now_ || what.empty() != waits_for_.empty();
  waits_for_ = what;
  if (beat_now_) wake_.SignalAll();
}

void LeaseKeeper::Cancel() {
  MutexLock lock(&mu_);
  if (verdict_.ok()) verdict_ = absl::CancelledError("the worker is stopping");
}

int64_t LeaseKeeper::peak_anonymous_bytes() {
  MutexLock lock(&mu_);
  return peak_anonymous_bytes_;
}

void LeaseKeeper::Loop() {
  absl::Duration next_beat = clock_->Steady() + interval_;
  while (true) {
    const int64_t anonymous = child_ == 0 ? AnonymousMemoryBytes() : AnonymousMemoryBytesOf(child_);
    {
      const absl::Duration next_sample = clock_->Steady() + kMemorySampleInterval;
      MutexLock lock(&mu_);
      peak_anonymous_bytes_ = std::max(peak_anonymous_bytes_, anonymous);
      while (!done_ && !beat_now_ && clock_->Steady() < next_sample) {
        clock_->WaitFor(wake_, &mu_, next_sample - clock_->Steady());
      }
      if (done_) return;
      if (beat_now_) next_beat = clock_->Steady();
      beat_now_ = false;
    }
    if (clock_->Steady() >= next_beat) {
      Beat();
      next_beat = clock_->Steady() + interval_;
    }
  }
}

void LeaseKeeper::CountBusy() {
  const double cpu = CpuSeconds(child_);
  const absl::Duration now = clock_->Steady();
  const double used = cpu - cpu_seconds_;
  if (used >= kBusyShare * absl::ToDoubleSeconds(now - cpu_looked_)) busy_seconds_ += used;
  cpu_seconds_ = cpu;
  cpu_looked_ = now;
}

void LeaseKeeper::Beat() {
  CountBusy();
  v1::HeartbeatRequest request;
  request.set_worker_id(worker_id_);
  request.set_incarnation(incarnation_);
  v1::LeaseBeat* beat = request.add_beats();
  beat->set_task(task_);
  beat->set_epoch(epoch_);
  {
    MutexLock lock(&mu_);
    beat->set_progress(progress_);
    beat->set_fraction(fraction_);
    beat->set_current(current_);
    beat->set_waits_for(waits_for_);
    beat->set_busy_seconds(busy_seconds_);
  }
  grpc::ClientContext context;
  SetTimeout(context, interval_);
  v1::HeartbeatResponse response;
  Failpoint("worker.before_heartbeat");
  absl::Status status = FromGrpcStatus(stub_->Heartbeat(&context, request, &response));
  MutexLock lock(&mu_);
  if (!status.ok()) {
    // An outage: keep computing, the result is fenced anyway. A refusal: the lease is gone.
    if (status.code() == absl::StatusCode::kFailedPrecondition && verdict_.ok()) {
      verdict_ = Failure(absl::StatusCode::kAborted, reasons::kLeaseLost.name, status.message());
    }
    return;
  }
  for (const v1::LeaseDirective& directive : response.directives()) {
    if (directive.task() != task_ || directive.epoch() != epoch_ || !verdict_.ok()) continue;
    if (directive.directive() == v1::LeaseDirective::CANCEL) {
      verdict_ = absl::CancelledError("the job was cancelled");
    } else if (directive.directive() == v1::LeaseDirective::LEASE_LOST) {
      verdict_ = Failure(absl::StatusCode::kAborted, reasons::kLeaseLost.name,
                         "another worker has the task");
    }
  }
}

}  // namespace lwq
