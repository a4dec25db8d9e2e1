// Sweeps over a weight in blocks after it was rounded: coordinate descent on the calibrated error,
// block by block (block_refinement.h). GPTQ decides each column once, before it knows the later
// ones' errors, and on scales that were fitted before any; sweeps afterwards know all of them.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/engine/gguf/block_fit.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {

// What is done to blocks besides fitting and rounding them.
struct BlockMethod {
  bool feedback = true;    // GPTQ's; without it columns are rounded to nearest
  int sweeps = 4;          // at most; a row without a change is done
  bool refinement = true;  // sweeps refit scales too
};

// Rows of a weight in blocks, in the host.
struct BlockRows {
  ConstMatrixView weights;
  absl::Span<GgufBlock> blocks;  // [rows, cols / type.block_size]
  absl::Span<double> gains;      // [rows]: what each row's error falls by is added
  // [rows]: what each row's error is before the first sweep is added; empty: nobody asks, and the
  // product of the weight's size with H that it takes is spared.
  absl::Span<double> losses = {};
};

// Whether sweeps are worth their time: with more levels than those of Q5_K the error is already
// hundreds of times smaller than what 2 bits leave.
inline bool WorthSweeping(const GgufTypeDef& type) { return type.shape->levels.size() <= 32; }

// Needs statistics.hessian(). Rows do not depend on each other, nor results on threads. Memory on
// the device: the errors as an input of products, and two matrices of BlockedHessian::kBlock
// columns; the same two in the host.
absl::Status DescendBlocks(Device* device, const GgufTypeDef& type,
                           const InputStatistics& statistics, const BlockMethod& method,
                           const BlockRows& rows);

}  // namespace lwq
