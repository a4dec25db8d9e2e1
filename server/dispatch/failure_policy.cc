#include "server/dispatch/failure_policy.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"

namespace lwq {
namespace {

constexpr int kMaxTransient = 10;
constexpr absl::Duration kFirstDelay = absl::Seconds(1);
constexpr absl::Duration kLongestDelay = absl::Seconds(60);

struct Rule {
  absl::string_view reason;
  int attempts;  // further ones
  bool counts;
};

// Reasons with a rule of their own; all others go by who is to blame.
constexpr Rule kRules[] = {
    {"BLOB_TIMEOUT", kMaxTransient, false},
    {"CANCELLED", 0, false},
    {"DEVICE_FAULT", 3, true},
    {"DEVICE_OOM", 1, true},
    {"HOST_OOM", 1, true},
    {"INTERNAL", 1, true},
    {"MEMORY_INFEASIBLE", 0, true},
    {"OVERLOADED", kMaxTransient, false},
    {"STORAGE_FULL", kMaxTransient, false},
    {"STORE_UNAVAILABLE", kMaxTransient, false},
    {"TASK_STALLED", 2, true},
    {"UNAVAILABLE", kMaxTransient, false},
};

}  // namespace

RetryDecision DecideRetry(const v1::TaskRecord& task, const v1::Failure& failure) {
  RetryDecision decision;
  if (failure.reason() == "BLOB_MISSING" || failure.reason() == "BLOB_CORRUPT") {
    decision.lost_inputs = true;
    decision.counts = false;
    return decision;
  }
  int attempts = 0;
  const Rule* rule = std::find_if(std::begin(kRules), std::end(kRules),
                                  [&](const Rule& r) { return r.reason == failure.reason(); });
  if (rule != std::end(kRules)) {
    attempts = rule->attempts;
    decision.counts = rule->counts;
  } else if (failure.retryable()) {
    attempts = kMaxTransient;
    decision.counts = false;
  }
  const int so_far = decision.counts ? task.attempt() : task.transient_count();
  decision.retry = so_far < attempts;
  if (!decision.counts) {
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
  if (absl::StrContains(reason, "OOM") || absl::StartsWith(reason, "MEMORY_") ||
      reason == "STORAGE_FULL") {
    return v1::Failure::CAPACITY;
  }
  if (absl::StartsWith(reason, "ST_") || absl::StartsWith(reason, "MODEL_") ||
      absl::StartsWith(reason, "INDEX_") || reason == "CONFIG_MISMATCH" ||
      reason == "NON_FINITE_WEIGHTS" || reason == "CHOLESKY_FAILED" || reason == "TENSOR_MISSING" ||
      reason == "SHAPE_MISMATCH") {
    return v1::Failure::MODEL;
  }
  switch (static_cast<absl::StatusCode>(code)) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return v1::Failure::USER;
    case absl::StatusCode::kDataLoss:
      return v1::Failure::MODEL;
    case absl::StatusCode::kResourceExhausted:
      return v1::Failure::CAPACITY;
    default:
      return v1::Failure::SERVICE;
  }
}

}  // namespace lwq
