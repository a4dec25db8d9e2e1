// Whether a task that failed runs again, when and on which workers, and whether that counts as an
// attempt.
#pragma once

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/lwq/v1/failure.pb.h"
#include "proto/lwq/v1/record.pb.h"

namespace lwq {

struct RetryDecision {
  bool again = false;        // wherever
  bool exclude = false;      // not on the worker that failed it, while there is another
  bool elsewhere = false;    // on another worker, though it would not run again here
  bool counts = true;        // as an attempt
  bool lost_inputs = false;  // a blob was lost: what made it has to run again first
  absl::Duration delay;
};

// What to do about `failure` of `task`, whose counters do not include it yet. One worker's word is
// never enough to fail a job: what blames the input is believed when two workers say so, what may
// lie in a worker's surroundings (its disk, its mounts, its memory, its version) when all do.
// `inputs_whole`: the server has looked, and the input that the worker says is lost is there.
RetryDecision DecideRetry(const v1::TaskRecord& task, const v1::Failure& failure,
                          bool inputs_whole = false);

// Whether a task in the queue, whose counters include its last failure, may run again where it
// failed.
bool MayRunAgainThere(const v1::TaskRecord& task);

// A task whose worker vanished: true when it has been lost too often to be handed out again. The
// counters of `task` include this loss.
inline constexpr int kMaxDistinctWorkersLost = 3;
inline constexpr int kMaxLosses = 10;
bool IsPoison(const v1::TaskRecord& task);

// Who can mend it, by its reason and code.
v1::Failure::Blame BlameOf(absl::string_view reason, int code);

}  // namespace lwq
