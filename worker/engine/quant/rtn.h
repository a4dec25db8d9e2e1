// Round to nearest: the quantizer that needs no data, and what the others fall back to.
#pragma once

#include "absl/status/statusor.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {

// Fits a grid to `weight` (device memory, finite) and rounds to it. `column_weight` [cols] in
// device memory, or null, weighs the scale search. The record holds the method and the weight
// error.
absl::StatusOr<QuantizedLinear> RoundToNearest(Device* device, ConstMatrixView weight,
                                               const GridSpec& grid, const float* column_weight);

}  // namespace lwq
