// How much a task works on at a time: the forecast's limits of its kind, in its specification.
#pragma once

#include "proto/lwq/v1/task.pb.h"
#include "worker/engine/plan/memory_model.h"

namespace lwq {

// Results depend on the limits in their last bits, so they are part of what a task is named by, and
// the worker takes them from there: it does not work them out again. What a ceiling leaves as it is
// has no number, so that jobs with a ceiling that is high enough share the results of those
// without.
void SetLimits(const MemoryForecast& forecast, v1::TaskSpec& spec);

}  // namespace lwq
