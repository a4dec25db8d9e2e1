#include <cmath>

#include "worker/engine/device/cuda/fit_kernels.h"
#include "worker/engine/device/cuda/grid_code.cuh"
#include "worker/engine/device/cuda/launch.cuh"
#include "worker/engine/device/cuda/reduce.cuh"

namespace lwq::cuda {
namespace {

constexpr int kWarps = 4;

// The sums of FitGroup over one group, by a warp: every lane has the results, so all walk the same
// way through the candidates. A group stays in the first-level cache from pass to pass.
class GroupSums {
 public:
  __device__ GroupSums(const float* w, const float* h, int64_t n, float top)
      : w_(w), h_(h), n_(n), top_(top), lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  __device__ GroupRange Range() const {
    float low = 0, high = 0;
    ForLane([&](float w, float) {
      low = fminf(low, w);
      high = fmaxf(high, w);
    });
    return {WarpReduce(low, Smallest()), WarpReduce(high, Largest())};
  }

  __device__ void Errors(const GridCandidate (&candidates)[kCandidateBatch], float* errors) const {
    float inverse[kCandidateBatch], sum[kCandidateBatch] = {};
#pragma unroll
    for (int c = 0; c < kCandidateBatch; ++c) inverse[c] = 1 / candidates[c].scale;
    ForLane([&](float w, float h) {
#pragma unroll
      for (int c = 0; c < kCandidateBatch; ++c) {
        const float difference =
            fmaf(-Steps(w, inverse[c], candidates[c].zero), candidates[c].scale, w);
        sum[c] = fmaf(h * difference, difference, sum[c]);
      }
    });
#pragma unroll
    for (int c = 0; c < kCandidateBatch; ++c) errors[c] = WarpReduce(sum[c], Sum());
  }

  __device__ float RefitScale(const GridCandidate& candidate) const {
    const float inverse = 1 / candidate.scale;
    float cross = 0, square = 0;
    ForLane([&](float w, float h) {
      const float steps = Steps(w, inverse, candidate.zero);
      cross = fmaf(h * steps, w, cross);
      square = fmaf(h * steps, steps, square);
    });
    cross = WarpReduce(cross, Sum());
    square = WarpReduce(square, Sum());
    return square > 0 ? cross / square : 0.0f;
  }

 private:
  template <typename Body>
  __device__ void ForLane(Body body) const {
    for (int64_t k = lane_; k < n_; k += kWarp) {
      body(NanToZero(w_[k]), h_ == nullptr ? 1.0f : h_[k]);
    }
  }

  __device__ float Steps(float w, float inverse, float zero) const {
    return fminf(fmaxf(rintf(w * inverse), -zero), top_ - zero);
  }

  const float* w_;
  const float* h_;
  int64_t n_;
  float top_;
  int lane_;
};

__global__ void __launch_bounds__(kWarps* kWarp)
    FitGridKernel(View<const float> weight, FitNumbers grid, ShrinkSweep sweep,
                  Span<const float> column_weight, View<float> scales, View<float> zeros) {
  const int64_t num_groups = scales.cols, total = weight.rows * num_groups;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp; at < total; at += step) {
    const int64_t r = at / num_groups, g = at % num_groups;
    const float* h = column_weight.empty() ? nullptr : column_weight.data + g * grid.group_size;
    const GroupSums sums(weight.Row(r) + g * grid.group_size, h, grid.group_size,
                         LargestCode(grid.bits));
    const GridCandidate best = FitGroup(grid, sweep, sums.Range(), sums);
    if (threadIdx.x % kWarp != 0) continue;
    scales.At(r, g) = best.scale;
    if (!grid.symmetric) zeros.At(r, g) = best.zero;
  }
}

}  // namespace

cudaError_t FitGrid(cudaStream_t stream, View<const float> weight, FitNumbers grid,
                    ShrinkSweep sweep, Span<const float> column_weight, View<float> scales,
                    View<float> zeros) {
  if (scales.empty()) return cudaSuccess;
  const int64_t blocks = CeilDiv(weight.rows * scales.cols, kWarps);
  return Launch(stream, dim3(static_cast<unsigned>(std::min<int64_t>(blocks, 1 << 20))),
                dim3(kWarps * kWarp), 0, FitGridKernel, weight, grid, sweep, column_weight, scales,
                zeros);
}

}  // namespace lwq::cuda
