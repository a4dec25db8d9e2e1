// Reductions in a fixed order: the same bits whatever else runs.
#pragma once

#include <cuda_runtime.h>

namespace lwq::cuda {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

struct Sum {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Smallest {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};

// Over the lanes of a warp, all of which take part and get the result.
template <typename T, typename Operation>
__device__ T WarpReduce(T value, Operation operation) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = operation(value, __shfl_xor_sync(kWholeWarp, value, distance));
  }
  return value;
}

// Over the threads of a block of whole warps, all of which take part and get the result.
// `scratch`: shared memory for a T a warp.
template <typename T, typename Operation>
__device__ T BlockReduce(T value, Operation operation, T* scratch) {
  value = WarpReduce(value, operation);
  __syncthreads();  // what an earlier reduction left may still be read
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = scratch[0];
  for (unsigned warp = 1; warp < blockDim.x / kWarp; ++warp) {
    value = operation(value, scratch[warp]);
  }
  return value;
}

}  // namespace lwq::cuda
