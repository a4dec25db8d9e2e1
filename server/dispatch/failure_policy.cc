#include "server/dispatch/failure_policy.h"

#include "base/reasons.h"
#include "base/retry.h"

namespace lwq {
namespace {

constexpr RetryPolicy kRequeue = {.first_wait = absl::Seconds(1),
                                  .longest_wait = absl::Seconds(60)};

// How many workers have to fail a task before it is given up.
constexpr int kAll = 16;  // bounds what a worker that starts again and again under new names costs
constexpr int kTwo = 2;
constexpr int kThree = 3;

// Of a worker that cannot read what is whole: a cable, a disk, its memory.
constexpr RetryRule kCannotRead = retry::Again(2);

// The rule of a reason that this server knows; else what the newer worker says.
RetryRule RuleOf(const v1::Failure& failure, bool inputs_whole) {
  const Reason* reason = FindReason(failure.reason());
  if (reason == nullptr) return failure.retryable() ? retry::kTransient : retry::kNoRetry;
  return reason->retry.remakes_inputs && inputs_whole ? kCannotRead : reason->retry;
}

// Of a failure that counts: how many workers it takes to believe that the task is to blame.
int WorkersNeeded(const v1::Failure& failure) {
  for (const Reason* environment :
       {&reasons::kHostOom, &reasons::kMemoryInfeasible, &reasons::kModelChanged,
        &reasons::kOutputInvalid, &reasons::kPathNotAllowed, &reasons::kTaskStalled}) {
    if (failure.reason() == environment->name) return kAll;
  }
  if (RuleOf(failure, /*inputs_whole=*/false).remakes_inputs) return kAll;
  // As with workers that are lost with it: after three it is the task.
  for (const Reason* fault : {&reasons::kInternal, &reasons::kTaskCrashed}) {
    if (failure.reason() == fault->name) return kThree;
  }
  switch (static_cast<absl::StatusCode>(failure.code())) {
    // A file, a permission, space or a kernel that another worker may have.
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnimplemented:
      return kAll;
    default:
      return kTwo;
  }
}

}  // namespace

RetryDecision DecideRetry(const v1::TaskRecord& task, const v1::Failure& failure,
                          bool inputs_whole) {
  const RetryRule rule = RuleOf(failure, inputs_whole);
  const int so_far = rule.counts ? task.attempt() : task.transient_count();
  RetryDecision decision;
  decision.counts = rule.counts;
  decision.lost_inputs = rule.remakes_inputs;
  if (!rule.counts || inputs_whole) decision.delay = WaitAfter(kRequeue, so_far);
  if (decision.lost_inputs) return decision;
  decision.again = so_far < rule.attempts;
  const int workers = rule.counts ? WorkersNeeded(failure) : 0;
  decision.exclude = workers > 0;  // else no worker's fault
  decision.elsewhere = task.excluded_size() + 1 < workers;
  return decision;
}

bool MayRunAgainThere(const v1::TaskRecord& task) {
  const RetryRule rule = RuleOf(task.failure(), /*inputs_whole=*/true);
  return (rule.counts ? task.attempt() : task.transient_count()) <= rule.attempts;
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
