// How the kernels here are started and how their threads find their elements.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "worker/engine/device/cuda/view.h"

namespace lwq::cuda {

// Dynamic shared memory that a kernel gets without asking for more.
constexpr size_t kSharedByDefault = 48 * 1024;
// What a kernel may ask for on every architecture that is built for (8.6 and 8.9 have the least).
constexpr size_t kSharedAtMost = 99 * 1024;

template <typename... Parameters, typename... Arguments>
cudaError_t Launch(cudaStream_t stream, dim3 grid, dim3 block, size_t shared_bytes,
                   void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (shared_bytes > kSharedByDefault) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The y and z sizes of a grid end here; kernels go round until all is done.
inline unsigned GridSize(int64_t count) {
  return static_cast<unsigned>(std::min<int64_t>(count, 65535));
}

// The block's dynamic shared memory.
template <typename T>
__device__ T* SharedMemory() {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  return reinterpret_cast<T*>(shared_bytes);
}

// --- one element a thread and step ---

constexpr int kElementThreads = 256;
constexpr int kElementsAtOnce = 4;  // loads under way in each thread

// Calls body(r, c) once for each element; LaunchElements makes the grid that it reads.
template <typename Body>
__device__ void ForEachElement(int64_t rows, int64_t cols, Body body) {
  const int64_t first = int64_t{blockIdx.x} * blockDim.x * kElementsAtOnce + threadIdx.x;
  const int64_t step = int64_t{gridDim.y} * blockDim.y;
  for (int64_t r = int64_t{blockIdx.y} * blockDim.y + threadIdx.y; r < rows; r += step) {
#pragma unroll
    for (int i = 0; i < kElementsAtOnce; ++i) {
      const int64_t c = first + int64_t{i} * blockDim.x;
      if (c < cols) body(r, c);
    }
  }
}

// A kernel that calls ForEachElement(rows, cols, ...). Narrow matrices get more rows a block.
template <typename... Parameters, typename... Arguments>
cudaError_t LaunchElements(cudaStream_t stream, int64_t rows, int64_t cols,
                           void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (rows == 0 || cols == 0) return cudaSuccess;
  int width = 1;
  while (width < kElementThreads && width < cols) width *= 2;
  const int height = kElementThreads / width;
  return Launch(stream,
                dim3(static_cast<unsigned>(CeilDiv(cols, int64_t{width} * kElementsAtOnce)),
                     GridSize(CeilDiv(rows, height))),
                dim3(width, height), 0, kernel, std::forward<Arguments>(arguments)...);
}

// --- one block a row ---

constexpr int kRowThreads = 256;

template <typename... Parameters, typename... Arguments>
cudaError_t LaunchRows(cudaStream_t stream, int64_t rows, size_t shared_bytes,
                       void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (rows == 0) return cudaSuccess;
  return Launch(stream, dim3(GridSize(rows)), dim3(kRowThreads), shared_bytes, kernel,
                std::forward<Arguments>(arguments)...);
}

}  // namespace lwq::cuda
