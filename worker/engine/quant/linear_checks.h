// What every quantizer checks before it starts.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {

// INVALID_ARGUMENT: "NON_FINITE_WEIGHTS" for a NaN or infinity in `weight`, naming its place, now
// or from the device's next answer (device.h); "BITS" or "GROUP_SIZE" for a grid that does not fit;
// "SHAPE" for an empty weight.
absl::Status CheckQuantizable(Device* device, DeviceView<const float> weight,
                              absl::Span<const GridSpec> grids);

}  // namespace lwq
