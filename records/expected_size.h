// How large an artifact will be, before any job: by the planner's own arithmetic.
#pragma once

#include <cstdint>

#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/model.pb.h"

namespace lwq {

// Bytes of the weight files of a plan that uses all of its budget, or of the largest plan there is
// where the budget allows more. 0 where that cannot be told: the server says what is wrong with the
// spec.
int64_t ExpectedFileBytes(const v1::QuantizeSpec& spec, const v1::ModelManifest& manifest);

}  // namespace lwq
