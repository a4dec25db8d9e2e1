// How much a task works on at a time, so that it keeps to the memory ceiling of its worker and of
// the job that wants it (engine/plan/memory_model.h).
#pragma once

#include "absl/strings/string_view.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/plan/memory_model.h"
#include "worker/runner/task_runner.h"

namespace lwq {

// The lower of the two ceilings; 0 where there is none.
int64_t CeilingOf(const TaskContext& context);

// A model's sizes as forecasts read them.
ModelInventory SizesOf(const DecoderSpec& spec);

// For the lease's task, which is of `kind` ("calibrate").
WorkLimits LimitsFor(const TaskContext& context, absl::string_view kind, const DecoderSpec& spec,
                     const MemoryQuestion& question);

}  // namespace lwq
