// The code of a weight on a grid: rounding divides, as on every device, so that codes are equal.
#pragma once

#include <cmath>

#include "worker/engine/device/cuda/element_kernels.h"

namespace lwq::cuda {

__device__ inline float NanToZero(float w) { return w == w ? w : 0.0f; }

__device__ inline float CodeOf(float w, float scale, float zero, float top) {
  return fminf(fmaxf(rintf(NanToZero(w) / scale) + zero, 0.0f), top);
}

__device__ inline float ZeroAt(const GroupedGrid& grid, const View<const float>& zeros, int64_t row,
                               int64_t group) {
  return grid.symmetric ? grid.symmetric_zero : zeros.At(row, group);
}

}  // namespace lwq::cuda
