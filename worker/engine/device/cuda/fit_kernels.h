// Scales and zeros of a weight's groups, by the search of worker/engine/device/scale_grid.h.
#pragma once

#include "worker/engine/device/cuda/view.h"
#include "worker/engine/device/scale_grid.h"

namespace lwq::cuda {

struct FitNumbers {
  // What scale_grid.h asks of a grid.
  int bits;
  bool symmetric;
  bool search;
  int64_t group_size;
};

// `column_weight`: [cols], or empty for ones. `zeros` is not written where the grid is symmetric.
cudaError_t FitGrid(cudaStream_t stream, View<const float> weight, FitNumbers grid,
                    ShrinkSweep sweep, Span<const float> column_weight, View<float> scales,
                    View<float> zeros);

}  // namespace lwq::cuda
