// Weights to blocks of GGUF types: rounding to nearest, and GPTQ's error feedback with the blocks'
// scales fixed before or as their turn comes, then sweeps over all of it (block_descent.h). Rows
// are independent, so it runs in the host's memory, row by row on all threads; only what a large
// block's errors do to other columns is a product on the device.
#pragma once

#include "absl/status/statusor.h"
#include "worker/engine/gguf/block_fit.h"
#include "worker/engine/quant/block_descent.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {

// `type`'s blocks divide the columns of `weight`, which is finite. `column_weight` [cols], or
// empty, weighs the search for scales.
absl::StatusOr<BlockLinear> RoundToBlocks(Device* device, DeviceView<const float> weight,
                                          const GgufTypeDef& type, GgufFit fit,
                                          DeviceSpan<const float> column_weight);

// The same for the inputs of `statistics`, with error feedback and sweeps as `method` says. Needs
// statistics.factor() for the one and statistics.hessian() for the others, which are left out
// without it. Scales that a search did not fit are not refitted.
absl::StatusOr<BlockLinear> RoundToBlocksFor(const InputStatistics& statistics,
                                             const BlockMethod& method, Device* device,
                                             DeviceView<const float> weight,
                                             const GgufTypeDef& type, GgufFit fit);

}  // namespace lwq
