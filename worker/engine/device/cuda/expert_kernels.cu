#include <cmath>

#include "worker/engine/device/cuda/expert_kernels.h"
#include "worker/engine/device/cuda/launch.cuh"
#include "worker/engine/device/cuda/reduce.cuh"

namespace lwq::cuda {
namespace {

constexpr int kWarps = 4;

struct Best {
  float logit;
  int expert;  // -1: none
};

// The greater, of equal ones the first.
__device__ Best Better(Best a, Best b) {
  if (b.expert < 0) return a;
  if (a.expert < 0 || b.logit > a.logit) return b;
  return b.logit == a.logit && b.expert < a.expert ? b : a;
}

// What is no number is less than all that are.
__device__ float LogitAt(const View<const float>& logits, int64_t row, int expert) {
  const float logit = logits.At(row, expert);
  return logit == logit ? logit : -INFINITY;
}

// The best of a row that is not taken; every 32nd expert is a lane's, bit i of `taken` says whether
// its i-th is. All lanes get the result, and its owner takes it.
__device__ Best TakeBest(const View<const float>& logits, int64_t row, uint64_t& taken) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Best best{-INFINITY, -1};
  for (int e = lane; e < logits.cols; e += kWarp) {
    if ((taken >> (e / kWarp) & 1) == 0) best = Better(best, {LogitAt(logits, row, e), e});
  }
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    best = Better(best, {__shfl_xor_sync(kWholeWarp, best.logit, distance),
                         __shfl_xor_sync(kWholeWarp, best.expert, distance)});
  }
  if (best.expert % kWarp == lane) taken |= uint64_t{1} << (best.expert / kWarp);
  return best;
}

// A warp has a row.
__global__ void __launch_bounds__(kWarps* kWarp)
    ChooseExpertsKernel(View<const float> logits, bool normalized, View<int32_t> chosen,
                        View<float> share) {
  const int64_t r = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  if (r >= logits.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  uint64_t taken = 0;
  double top = 0, chosen_total = 0;
  for (int j = 0; j < chosen.cols; ++j) {
    const Best best = TakeBest(logits, r, taken);
    if (j == 0) top = static_cast<double>(best.logit);
    const double power = exp(static_cast<double>(best.logit) - top);
    chosen_total += power;
    if (lane != 0) continue;
    chosen.At(r, j) = best.expert;
    share.At(r, j) = best.logit;  // until the totals are known
  }
  double total = 0;
  for (int e = lane; e < logits.cols; e += kWarp) {
    total += exp(static_cast<double>(LogitAt(logits, r, e)) - top);
  }
  total = WarpReduce(total, Sum());
  if (lane != 0) return;
  for (int j = 0; j < chosen.cols; ++j) {
    const double power = exp(static_cast<double>(share.At(r, j)) - top);
    share.At(r, j) = static_cast<float>(power / (normalized ? chosen_total : total));
  }
}

__global__ void GatherRowsKernel(View<const float> from, Span<const int32_t> rows, View<float> to,
                                 unsigned long long* first_outside) {
  ForEachElement(to.rows, to.cols, [&](int64_t r, int64_t c) {
    const int64_t row = rows[r];
    const bool inside = row >= 0 && row < from.rows;
    to.At(r, c) = inside ? from.At(row, c) : 0.0f;
    if (!inside) atomicMin(first_outside, static_cast<unsigned long long>(r));
  });
}

__global__ void ScatterAddRowsKernel(View<const float> from, Span<const int32_t> rows,
                                     Span<const float> scale, View<float> to,
                                     unsigned long long* first_outside) {
  ForEachElement(from.rows, from.cols, [&](int64_t r, int64_t c) {
    const int64_t row = rows[r];
    if (row >= 0 && row < to.rows) {
      to.At(row, c) = fmaf(scale[r], from.At(r, c), to.At(row, c));
    } else {
      atomicMin(first_outside, static_cast<unsigned long long>(r));
    }
  });
}

__global__ void SigmoidRowsKernel(Span<const float> gate, View<float> x) {
  ForEachElement(x.rows, x.cols,
                 [&](int64_t r, int64_t c) { x.At(r, c) = x.At(r, c) / (1 + expf(-gate[r])); });
}

}  // namespace

cudaError_t ChooseExperts(cudaStream_t stream, View<const float> logits, bool normalized,
                          View<int32_t> chosen, View<float> share) {
  if (logits.rows == 0) return cudaSuccess;
  return Launch(stream, dim3(static_cast<unsigned>(CeilDiv(logits.rows, kWarps))),
                dim3(kWarps * kWarp), 0, ChooseExpertsKernel, logits, normalized, chosen, share);
}
cudaError_t GatherRows(cudaStream_t stream, View<const float> from, Span<const int32_t> rows,
                       View<float> to, unsigned long long* first_outside) {
  return LaunchElements(stream, to.rows, to.cols, GatherRowsKernel, from, rows, to, first_outside);
}
cudaError_t ScatterAddRows(cudaStream_t stream, View<const float> from, Span<const int32_t> rows,
                           Span<const float> scale, View<float> to,
                           unsigned long long* first_outside) {
  return LaunchElements(stream, from.rows, from.cols, ScatterAddRowsKernel, from, rows, scale, to,
                        first_outside);
}
cudaError_t SigmoidRows(cudaStream_t stream, Span<const float> gate, View<float> x) {
  return LaunchElements(stream, x.rows, x.cols, SigmoidRowsKernel, gate, x);
}

}  // namespace lwq::cuda
