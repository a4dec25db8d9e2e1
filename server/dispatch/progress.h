// How far a job is, from how its tasks stand. Pure.
#pragma once

#include "proto/lwq/v1/job.pb.h"
#include "server/dispatch/dispatch_state.h"

namespace lwq {

// Brings phase, progress and queue_detail of the job up to date. The fraction never falls.
void UpdateProgress(const Draft& draft, v1::JobRecord& job);

// The job as lists and watchers see it: items of evaluations left out, and layers where a message
// has no room for them.
v1::Job WithoutItems(const v1::Job& job);

// "quantize layer 17/32" of a running task of the job, from its last heartbeat; "" when none runs.
std::string CurrentWork(const DispatchState& state, const v1::JobRecord& job);

}  // namespace lwq
