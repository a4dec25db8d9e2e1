#include "worker/engine/device/cuda/bits.cuh"
#include "worker/engine/device/cuda/launch.cuh"
#include "worker/engine/device/cuda/tile_kernels.h"

namespace lwq::cuda {
namespace {

constexpr int kTile = 32;
constexpr int kTileRows = 8;            // threads of a tile: [kTileRows, kTile]
constexpr int kTileStride = kTile + 1;  // one more: a column's elements lie in different banks
constexpr size_t kTileBytes = sizeof(float) * kTile * kTileStride;

// Calls body(i, j) for the elements of a tile; threads that follow each other get columns that do.
template <typename Body>
__device__ void ForTile(Body body) {
  const int j = static_cast<int>(threadIdx.x);
  for (int i = static_cast<int>(threadIdx.y); i < kTile; i += kTileRows) body(i, j);
}

__device__ void Store(float value, float& to) { to = value; }
__device__ void Store(float value, uint16_t& to) { to = RoundToBF16(value); }

template <typename T>
__global__ void TransposeKernel(View<const float> from, View<T> to) {
  float* tile = SharedMemory<float>();
  const int64_t r0 = int64_t{blockIdx.y} * kTile, c0 = int64_t{blockIdx.x} * kTile;
  ForTile([&](int i, int j) {
    if (r0 + i < from.rows && c0 + j < from.cols) {
      tile[i * kTileStride + j] = from.At(r0 + i, c0 + j);
    }
  });
  __syncthreads();
  ForTile([&](int i, int j) {
    if (c0 + i < from.cols && r0 + j < from.rows) {
      Store(tile[j * kTileStride + i], to.At(c0 + i, r0 + j));
    }
  });
}

// One block for each tile on and below the diagonal, which also owns the tile's mirror image.
__global__ void ScaleAndMirrorKernel(float factor, View<float> a) {
  if (blockIdx.x > blockIdx.y) return;
  float* tile = SharedMemory<float>();
  const int64_t r0 = int64_t{blockIdx.y} * kTile, c0 = int64_t{blockIdx.x} * kTile, n = a.rows;
  ForTile([&](int i, int j) {
    const int64_t r = r0 + i, c = c0 + j;
    if (r < n && c <= r) a.At(r, c) = tile[i * kTileStride + j] = factor * a.At(r, c);
  });
  __syncthreads();
  ForTile([&](int i, int j) {
    const int64_t r = c0 + i, c = r0 + j;
    if (c < n && r < c) a.At(r, c) = tile[j * kTileStride + i];
  });
}

__global__ void ReverseLowerKernel(View<const float> h, View<float> out) {
  float* tile = SharedMemory<float>();
  const int64_t r0 = int64_t{blockIdx.y} * kTile, c0 = int64_t{blockIdx.x} * kTile, n = h.rows;
  // tile[i, j] = h[n - 1 - (c0 + i), n - 1 - (r0 + j)]
  ForTile([&](int i, int j) {
    const int64_t r = n - 1 - (c0 + i), c = n - 1 - (r0 + j);
    tile[i * kTileStride + j] = r >= 0 && c >= 0 && c <= r ? h.At(r, c) : 0.0f;
  });
  __syncthreads();
  ForTile([&](int i, int j) {
    const int64_t r = r0 + i, c = c0 + j;
    if (r < n && c < n) out.At(r, c) = c <= r ? tile[j * kTileStride + i] : 0.0f;
  });
}

__global__ void ReverseFactorKernel(View<const float> lower, View<float> out,
                                    unsigned long long* first_bad) {
  const int64_t n = out.rows;
  unsigned long long bad = ~0ull;
  ForEachElement(n, n, [&](int64_t r, int64_t c) {
    const float value = c >= r ? lower.At(n - 1 - r, n - 1 - c) : 0.0f;
    out.At(r, c) = value;
    const bool finite = (BitsOf(value) & 0x7f800000u) != 0x7f800000u;
    const unsigned long long column = static_cast<unsigned long long>(c);
    if ((!finite || (c == r && !(value > 0))) && column < bad) bad = column;
  });
  if (bad != ~0ull) atomicMin(first_bad, bad);
}

// More than two million rows do not start: the y size of a grid ends there.
dim3 Tiles(int64_t rows, int64_t cols) {
  return dim3(static_cast<unsigned>(CeilDiv(cols, kTile)),
              static_cast<unsigned>(CeilDiv(rows, kTile)));
}
constexpr dim3 kTileThreads(kTile, kTileRows);

template <typename T>
cudaError_t LaunchTranspose(cudaStream_t stream, View<const float> from, View<T> to) {
  if (from.empty()) return cudaSuccess;
  return Launch(stream, Tiles(from.rows, from.cols), kTileThreads, kTileBytes, TransposeKernel<T>,
                from, to);
}

}  // namespace

cudaError_t Transpose(cudaStream_t stream, View<const float> from, View<float> to) {
  return LaunchTranspose(stream, from, to);
}
cudaError_t Transpose(cudaStream_t stream, View<const float> from, View<uint16_t> to) {
  return LaunchTranspose(stream, from, to);
}

cudaError_t ScaleAndMirror(cudaStream_t stream, float factor, View<float> a) {
  if (a.empty()) return cudaSuccess;
  return Launch(stream, Tiles(a.rows, a.rows), kTileThreads, kTileBytes, ScaleAndMirrorKernel,
                factor, a);
}

cudaError_t ReverseLower(cudaStream_t stream, View<const float> h, View<float> out) {
  if (h.empty()) return cudaSuccess;
  return Launch(stream, Tiles(h.rows, h.rows), kTileThreads, kTileBytes, ReverseLowerKernel, h,
                out);
}

cudaError_t ReverseFactor(cudaStream_t stream, View<const float> lower, View<float> out,
                          unsigned long long* first_bad) {
  return LaunchElements(stream, out.rows, out.cols, ReverseFactorKernel, lower, out, first_bad);
}

}  // namespace lwq::cuda
