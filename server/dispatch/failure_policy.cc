#include "server/dispatch/failure_policy.h"

#include <algorithm>

#include "base/reasons.h"

namespace lwq {
namespace {

constexpr absl::Duration kFirstDelay = absl::Seconds(1);
constexpr absl::Duration kLongestDelay = absl::Seconds(60);

// The rule of a reason that this server knows; else what the newer worker says.
RetryRule RuleOf(const v1::Failure& failure) {
  if (const Reason* reason = FindReason(failure.reason())) return reason->retry;
  return failure.retryable() ? retry::kTransient : retry::kNoRetry;
}

}  // namespace

RetryDecision DecideRetry(const v1::TaskRecord& task, const v1::Failure& failure) {
  const RetryRule rule = RuleOf(failure);
  RetryDecision decision;
  decision.counts = rule.counts;
  decision.lost_inputs = rule.remakes_inputs;
  if (decision.lost_inputs) return decision;
  const int so_far = rule.counts ? task.attempt() : task.transient_count();
  decision.retry = so_far < rule.attempts;
  if (!rule.counts) {
    absl::Duration delay = kFirstDelay;
    for (int i = 0; i < so_far && delay < kLongestDelay; ++i) delay *= 2;
    decision.delay = std::min(delay, kLongestDelay);
  }
  return decision;
}

bool IsPoison(const v1::TaskRecord& task) {
  return task.lost_workers_size() >= kMaxDistinctWorkersLost || task.lost_count() >= kMaxLosses;
}

v1::Failure::Blame BlameOf(absl::string_view reason, int code) {
  switch (ReasonLine(reason, static_cast<absl::StatusCode>(code)).blame) {
    case Blame::kUser:
      return v1::Failure::USER;
    case Blame::kModel:
      return v1::Failure::MODEL;
    case Blame::kCapacity:
      return v1::Failure::CAPACITY;
    case Blame::kService:
      return v1::Failure::SERVICE;
  }
  return v1::Failure::SERVICE;
}

}  // namespace lwq
