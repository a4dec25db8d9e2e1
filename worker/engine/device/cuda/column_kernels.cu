#include <algorithm>
#include <cmath>

#include "worker/engine/device/cuda/column_kernels.h"
#include "worker/engine/device/cuda/grid_code.cuh"
#include "worker/engine/device/cuda/launch.cuh"
#include "worker/engine/device/cuda/reduce.cuh"
#include "worker/engine/device/scale_grid.h"

namespace lwq::cuda {
namespace {

constexpr int kMostWarps = 8;

__device__ int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }

// The row of this warp.
__device__ int64_t Row() { return (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp; }

// Calls body(k) for k = first + lane, first + lane + 32, ... below end.
template <typename Body>
__device__ void ForLanes(int first, int end, Body body) {
  for (int k = first + Lane(); k < end; k += kWarp) body(k);
}

// The shared memory of a warp: `count` numbers a column.
template <int count>
__device__ float* WarpMemory(int64_t cols) {
  return SharedMemory<float>() + threadIdx.x / kWarp * count * cols;
}

// A row of B columns: the weights as updated so far, the scaled errors and the codes.
__global__ void __launch_bounds__(kMostWarps* kWarp)
    GptqBlockKernel(View<float> w, View<const float> u, GroupedGrid grid, View<const float> scales,
                    View<const float> zeros, Span<const int32_t> columns, View<uint8_t> codes,
                    View<float> error, Span<double> loss) {
  const int cols = static_cast<int>(w.cols), group_size = static_cast<int>(grid.group_size);
  float* weights = WarpMemory<3>(cols);
  float* errors = weights + cols;
  float* row_codes = errors + cols;
  const int64_t r = Row();
  if (r >= w.rows) return;
  ForLanes(0, cols, [&](int k) { weights[k] = w.At(r, k); });
  __syncwarp();
  double squares = 0;
  for (int j = 0; j < cols; ++j) {
    const int group = columns[j] / group_size;
    const float scale = scales.At(r, group), zero = ZeroAt(grid, zeros, r, group);
    const float value = weights[j];
    const float code = CodeOf(value, scale, zero, grid.largest_code);
    const float scaled_error = (value - scale * (code - zero)) / u.At(j, j);
    squares += static_cast<double>(scaled_error) * static_cast<double>(scaled_error);
    if (Lane() == j % kWarp) {
      errors[j] = scaled_error;
      row_codes[j] = code;
    }
    ForLanes(j + 1, cols, [&](int k) { weights[k] = fmaf(-scaled_error, u.At(j, k), weights[k]); });
    __syncwarp();
  }
  ForLanes(0, cols, [&](int k) {
    const int group = columns[k] / group_size;
    const float code = row_codes[k];
    w.At(r, k) = scales.At(r, group) * (code - ZeroAt(grid, zeros, r, group));
    error.At(r, k) = errors[k];
    codes.At(r, k) = static_cast<uint8_t>(code);
  });
  if (Lane() == 0) loss[r] += squares;
}

// One row of RefineBlock. steps[j] = code - zero, so that a value is scale * steps.
struct RowState {
  float* residual;
  float* steps;
  float* moment;  // h times the steps of the group at hand
};

// The scale that fits best to a group's codes, where it helps; the residuals follow.
__device__ float RefitScale(const RowState& row, const View<const float>& h, int begin, int end,
                            float scale, double& gain) {
  const int cols = static_cast<int>(h.cols);
  ForLanes(begin, cols, [&](int i) {
    float sum = 0;
    for (int j = begin; j < end; ++j) sum = fmaf(h.At(j, i), row.steps[j], sum);
    row.moment[i] = sum;
  });
  float cross = 0, square = 0;
  ForLanes(begin, end, [&](int j) {
    cross = fmaf(row.residual[j], row.steps[j], cross);
    square = fmaf(row.moment[j], row.steps[j], square);
  });
  cross = WarpReduce(cross, Sum());
  square = WarpReduce(square, Sum());
  if (!(square > 0)) return scale;
  const float fitted = SnapScale(scale + cross / square);
  const float difference = fitted - scale;
  const float gained = difference * (2 * cross - difference * square);
  if (!(gained > 0)) return scale;
  gain += static_cast<double>(gained);
  ForLanes(begin, cols,
           [&](int i) { row.residual[i] = fmaf(-difference, row.moment[i], row.residual[i]); });
  return fitted;
}

// Code after code the one that fits best while all else stays.
__device__ void RefineCodes(const RowState& row, const View<const float>& h, int begin, int end,
                            float scale, float zero, float top, double& gain) {
  const int cols = static_cast<int>(h.cols);
  for (int j = begin; j < end; ++j) {
    const float residual = row.residual[j], steps = row.steps[j], here = h.At(j, j);
    const float target = steps + residual / (here * scale);
    const float best = fminf(fmaxf(rintf(target), -zero), top - zero);
    const float moved = scale * (best - steps);
    gain += static_cast<double>(moved * (2 * residual - moved * here));
    __syncwarp();  // all lanes have read the step
    if (Lane() == j % kWarp) row.steps[j] = best;
    ForLanes(j + 1, cols,
             [&](int i) { row.residual[i] = fmaf(-moved, h.At(j, i), row.residual[i]); });
    __syncwarp();
  }
}

__global__ void __launch_bounds__(kMostWarps* kWarp)
    RefineBlockKernel(View<const float> residual, View<const float> h, GroupedGrid grid,
                      bool refit_scales, View<float> scales, View<const float> zeros,
                      View<uint8_t> codes, View<float> change, Span<double> gain) {
  const int cols = static_cast<int>(residual.cols);
  const int group_size = static_cast<int>(grid.group_size);
  float* memory = WarpMemory<3>(cols);
  const RowState row{memory, memory + cols, memory + 2 * cols};
  const int64_t r = Row();
  if (r >= residual.rows) return;
  ForLanes(0, cols, [&](int k) { row.residual[k] = residual.At(r, k); });
  double gained = 0;
  for (int begin = 0; begin < cols; begin += group_size) {
    const int end = begin + group_size;
    const int64_t g = begin / group_size;
    const float before = scales.At(r, g), zero = ZeroAt(grid, zeros, r, g);
    ForLanes(begin, end, [&](int j) {
      row.steps[j] = static_cast<float>(codes.At(r, j)) - zero;
      change.At(r, j) = -(before * row.steps[j]);
    });
    __syncwarp();
    float scale = before;
    if (refit_scales) scale = RefitScale(row, h, begin, end, before, gained);
    __syncwarp();
    RefineCodes(row, h, begin, end, scale, zero, grid.largest_code, gained);
    ForLanes(begin, end, [&](int j) {
      codes.At(r, j) = static_cast<uint8_t>(row.steps[j] + zero);
      change.At(r, j) += scale * row.steps[j];
    });
    if (Lane() == 0) scales.At(r, g) = scale;
  }
  if (Lane() == 0) gain[r] += gained;
}

// As many warps a block as their rows' state has room for.
int WarpsOf(int64_t cols) {
  const int64_t bytes = 3 * cols * int64_t{sizeof(float)};
  return static_cast<int>(
      std::clamp<int64_t>(static_cast<int64_t>(kSharedByDefault) / bytes, 1, kMostWarps));
}

template <typename... Parameters, typename... Arguments>
cudaError_t LaunchWarpRows(cudaStream_t stream, int64_t rows, int64_t cols,
                           void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (rows == 0 || cols == 0) return cudaSuccess;
  const int warps = WarpsOf(cols);
  return Launch(stream, dim3(static_cast<unsigned>(CeilDiv(rows, warps))), dim3(warps * kWarp),
                sizeof(float) * 3 * static_cast<size_t>(cols * warps), kernel,
                std::forward<Arguments>(arguments)...);
}

}  // namespace

cudaError_t GptqBlock(cudaStream_t stream, View<float> w, View<const float> u, GroupedGrid grid,
                      View<const float> scales, View<const float> zeros,
                      Span<const int32_t> columns, View<uint8_t> codes, View<float> error,
                      Span<double> loss) {
  return LaunchWarpRows(stream, w.rows, w.cols, GptqBlockKernel, w, u, grid, scales, zeros, columns,
                        codes, error, loss);
}

cudaError_t RefineBlock(cudaStream_t stream, View<const float> residual, View<const float> h,
                        GroupedGrid grid, bool refit_scales, View<float> scales,
                        View<const float> zeros, View<uint8_t> codes, View<float> change,
                        Span<double> gain) {
  return LaunchWarpRows(stream, residual.rows, residual.cols, RefineBlockKernel, residual, h, grid,
                        refit_scales, scales, zeros, codes, change, gain);
}

}  // namespace lwq::cuda
