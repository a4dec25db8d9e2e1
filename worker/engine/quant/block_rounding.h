// Weights to blocks of GGUF types: rounding to nearest, and GPTQ's error feedback with the blocks'
// scales fixed before or as their turn comes. Rows are independent, so it runs in the host's
// memory, row by row on all threads; only what a large block's errors do to the columns behind it
// is a product on the device.
#pragma once

#include "absl/status/statusor.h"
#include "worker/engine/gguf/block_fit.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {

// `type`'s blocks divide the columns of `weight`, which is finite. `column_weight` [cols], or
// empty, weighs the search for scales.
absl::StatusOr<BlockLinear> RoundToBlocks(Device* device, DeviceView<const float> weight,
                                          const GgufTypeDef& type, GgufFit fit,
                                          DeviceSpan<const float> column_weight);

// The same with error feedback. Needs statistics.factor().
absl::StatusOr<BlockLinear> RoundToBlocksWithFeedback(Device* device,
                                                      DeviceView<const float> weight,
                                                      const GgufTypeDef& type, GgufFit fit,
                                                      const InputStatistics& statistics);

}  // namespace lwq
