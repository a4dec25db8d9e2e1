// What every quantizer checks before it starts and measures when it is done.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {

// INVALID_ARGUMENT: "NON_FINITE_WEIGHTS" for a NaN or infinity in `weight` (device memory), naming
// its place; "BITS" or "GROUP_SIZE" for a grid that does not fit; "SHAPE" for an empty weight.
absl::Status CheckQuantizable(Device* device, ConstMatrixView weight,
                              absl::Span<const GridSpec> grids);

// |Q(W) - W|^2 / |W|^2 of finished codes; 0 for a weight of zeros. `weight` in device memory.
absl::StatusOr<double> RelativeWeightError(Device* device, ConstMatrixView weight,
                                           const QuantizedLinear& quantized);

}  // namespace lwq
