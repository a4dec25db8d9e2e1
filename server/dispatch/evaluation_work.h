// What the evaluations of a job compute. The rolling form scores so many bytes of a text, and how
// many tokens those are is known once somebody has measured it: then those that come after are
// counted anew. Pure.
#pragma once

#include <cstdint>
#include <optional>

#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/task.pb.h"
#include "server/dispatch/dispatch_state.h"
#include "worker/engine/plan/work_model.h"

namespace lwq {

// `rolling_tokens`: of the same text, as they were counted; where nobody did, as many as a text
// that is rich in tokens has.
Work EvaluationWork(const WorkModel& model, const v1::EvaluateTask& task,
                    std::optional<int64_t> rolling_tokens = std::nullopt);

// The operations of `task`, of which `output` is the result: those that it was. 0 where nobody can
// say.
double OperationsDone(const Draft& draft, const v1::TaskRecord& task, const v1::TaskOutput& output);

// Counts the job's evaluations that are still to come by what is known of their texts now.
void RecountEvaluations(Draft& draft, const v1::JobRecord& job);

}  // namespace lwq
