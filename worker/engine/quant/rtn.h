// Round to nearest: the quantizer that needs no data, and what the others fall back to.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/quant/device_linear.h"

namespace lwq {

// Fits a grid to `weight`, which is finite, and rounds to it. `column_weight` [cols], or empty,
// weighs the scale search.
absl::StatusOr<DeviceLinear> RoundToNearest(Device* device, DeviceView<const float> weight,
                                            const GridSpec& grid,
                                            DeviceSpan<const float> column_weight);

// What a record calls codes that were made so.
inline constexpr absl::string_view kRoundToNearest = "rtn";

}  // namespace lwq
