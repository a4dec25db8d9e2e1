// Upper bounds of a worker's anonymous memory, before a job starts, from sizes alone.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/engine/format/weight_format.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

// The total is of the largest task, not the sum: no task holds all of these at once.
struct MemoryForecast {
  int64_t layer_bytes = 0;    // largest layer's weights as prepared for compute
  int64_t head_bytes = 0;     // output head and one block of logits
  int64_t hessian_bytes = 0;  // statistics and factor of the widest linear, 0 without calibration
  int64_t activation_bytes = 0;  // a chunk of tokens through the widest layer
  int64_t fixed_bytes = 0;       // libraries, code, buffers
  int64_t total_bytes = 0;       // the ceiling that is needed
};

// `formats`: all that the job computes at once. `calibrated`: statistics or hidden states are
// collected.
MemoryForecast ForecastWorkerMemory(const ModelInventory& model,
                                    absl::Span<const WeightFormat* const> formats, bool calibrated,
                                    bool bf16);

// RESOURCE_EXHAUSTED "MEMORY_INFEASIBLE" naming both numbers when `ceiling_bytes` > 0 is too small.
absl::Status CheckMemoryCeiling(const MemoryForecast& forecast, int64_t ceiling_bytes);

}  // namespace lwq
