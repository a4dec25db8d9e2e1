#include "base/retry.h"

#include <algorithm>
#include <random>
#include <utility>

#include "base/status_macros.h"

namespace lwq {

absl::Duration WaitAfter(const RetryPolicy& policy, int failures) {
  constexpr int kMostDoublings = 30;  // beyond any longest wait
  return std::min(policy.first_wait * (int64_t{1} << std::clamp(failures, 0, kMostDoublings)),
                  policy.longest_wait);
}

absl::Duration WithJitter(absl::Duration wait) {
  thread_local std::minstd_rand random(std::random_device{}());
  return wait * (0.5 + 0.5 * std::uniform_real_distribution<double>(0, 1)(random));
}

Retry::Retry(const RetryPolicy& policy, Clock* clock, MayGoOn may_go_on, Sleep sleep)
    : policy_(policy),
      clock_(clock),
      may_go_on_(std::move(may_go_on)),
      sleep_(std::move(sleep)) {
  Reset();
}

absl::Status Retry::BeforeRetry(const absl::Status& status) {
  if (!policy_.is_transient(status)) return status;
  if (may_go_on_) LWQ_RETURN_IF_ERROR(may_go_on_(status));
  if (policy_.tries > 0 && failures_ + 1 >= policy_.tries) return status;
  if (clock_->Steady() + WaitAfter(policy_, failures_) > give_up_) return status;
  Wait();
  return absl::OkStatus();
}

void Retry::Wait() {
  const absl::Duration wait = WithJitter(WaitAfter(policy_, failures_++));
  if (sleep_) {
    sleep_(wait);
  } else {
    clock_->SleepFor(wait);
  }
}

void Retry::Reset() {
  failures_ = 0;
  give_up_ = clock_->Steady() + policy_.time;
}

}  // namespace lwq
