// Whether what a worker brings is a result of its task at all. It is cached under a key that every
// later job trusts, so the shape is checked before it counts; the numbers are the worker's word.
#pragma once

#include "absl/status/status.h"
#include "proto/lwq/v1/model.pb.h"
#include "proto/lwq/v1/record.pb.h"
#include "proto/lwq/v1/task.pb.h"

namespace lwq {

// INVALID_ARGUMENT "OUTPUT_INVALID" says what is missing or wrong. `model`: of the task; null when
// it has none.
absl::Status CheckOutput(const v1::TaskRecord& task, const v1::Model* model,
                         const v1::TaskOutput& output);

}  // namespace lwq
