#include <algorithm>
#include <cmath>

#include "worker/engine/device/cuda/attention_kernels.h"
#include "worker/engine/device/cuda/launch.cuh"
#include "worker/engine/device/cuda/reduce.cuh"

namespace lwq::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kKeyTile = 32;
constexpr int kThreadsPerQuery = kThreads / kQueryTile;  // 4, neighbours in a warp

struct alignas(16) Four {
  float x, y, z, w;
};

// A tile's shared memory: queries [32, padded], keys and then values [32, padded], scores [32, 33],
// rows of keys. Rows are padded to a multiple of four values, filled with zeros, and four more, so
// that eight threads that read eight rows find them in different banks.
struct Tile {
  __host__ __device__ static int Padded(int head_dim) { return (head_dim + 3) / 4 * 4; }
  __host__ __device__ static int Stride(int head_dim) { return Padded(head_dim) + 4; }
  static size_t Bytes(int head_dim) {
    return sizeof(float) * (2 * kQueryTile * Stride(head_dim) + kQueryTile * (kKeyTile + 1)) +
           sizeof(int32_t) * kKeyTile;
  }

  __device__ explicit Tile(int head_dim)
      : stride(Stride(head_dim)),
        queries(SharedMemory<float>()),
        keys(queries + kQueryTile * stride),
        values(keys),
        scores(keys + kKeyTile * stride),
        key_rows(reinterpret_cast<int32_t*>(scores + kQueryTile * (kKeyTile + 1))) {}

  __device__ float& Score(int query, int key) const { return scores[query * (kKeyTile + 1) + key]; }

  int stride;
  float* queries;
  float* keys;
  float* values;
  float* scores;
  int32_t* key_rows;
};

__device__ Four LoadFour(const float* from) { return *reinterpret_cast<const Four*>(from); }

// Rows row_of(0), ... of one head into a tile; rows below 0 and the padding are zeros.
template <typename RowOf>
__device__ void LoadRows(View<const float> from, int64_t first_column, int head_dim, int stride,
                         RowOf row_of, float* to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < kQueryTile; i += kThreads / kWarp) {
    const int64_t row = row_of(i);
    for (int d = lane; d < Tile::Padded(head_dim); d += kWarp) {
      to[i * stride + d] = row >= 0 && d < head_dim ? from.At(row, first_column + d) : 0.0f;
    }
  }
}

// The rows of list entries [first, first + kKeyTile), -1 past `end`.
__device__ void FindKeyRows(const QueryTile& tile, Span<const KeyRange> ranges, int first, int end,
                            int32_t* key_rows) {
  if (threadIdx.x >= kKeyTile) return;
  const int entry = first + static_cast<int>(threadIdx.x);
  int32_t row = -1;
  for (int i = tile.first_range; entry < end && i < tile.first_range + tile.num_ranges; ++i) {
    const KeyRange range = ranges[i];
    if (entry >= range.first && entry < range.first + range.size) {
      row = range.row + entry - range.first;
    }
  }
  key_rows[threadIdx.x] = row;
}

// Scores of two queries and four keys a thread: 16 x 8 threads.
__device__ void ComputeScores(const Tile& shared, const QueryTile& tile,
                              const AttentionNumbers& numbers, int first_key) {
  const int q0 = static_cast<int>(threadIdx.x) / 8 * 2, k0 = static_cast<int>(threadIdx.x) % 8;
  float sums[2][4] = {};
  for (int d = 0; d < Tile::Padded(numbers.head_dim); d += 4) {
    Four key[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) key[k] = LoadFour(shared.keys + (k0 + 8 * k) * shared.stride + d);
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      const Four query = LoadFour(shared.queries + (q0 + q) * shared.stride + d);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        float sum = fmaf(query.x, key[k].x, sums[q][k]);
        sum = fmaf(query.y, key[k].y, sum);
        sum = fmaf(query.z, key[k].z, sum);
        sums[q][k] = fmaf(query.w, key[k].w, sum);
      }
    }
  }
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    const int place = tile.place + q0 + q;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int entry = first_key + k0 + 8 * k;
      float score = sums[q][k] * numbers.scale;
      if (numbers.logit_softcap > 0) {
        score = numbers.logit_softcap * tanhf(score / numbers.logit_softcap);
      }
      const bool seen =
          entry <= place && (numbers.sliding_window == 0 || entry > place - numbers.sliding_window);
      shared.Score(q0 + q, k0 + 8 * k) = seen ? score : -INFINITY;
    }
  }
}

// Over the four threads of a query.
template <typename Operation>
__device__ float QueryReduce(float value, Operation operation) {
  value = operation(value, __shfl_xor_sync(kWholeWarp, value, 1));
  return operation(value, __shfl_xor_sync(kWholeWarp, value, 2));
}

// Scores become weights exp(score - top); returns what earlier sums are to be multiplied with.
__device__ float UpdateSoftmax(const Tile& shared, int query, int lane, float& top, float& total) {
  constexpr int kKeys = kKeyTile / kThreadsPerQuery;
  float score[kKeys], tile_top = -INFINITY;
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    score[i] = shared.Score(query, lane + kThreadsPerQuery * i);
    tile_top = fmaxf(tile_top, score[i]);
  }
  const float new_top = fmaxf(top, QueryReduce(tile_top, Largest()));
  // No key so far: weights of zero, whatever the difference of two infinities is.
  const bool none = new_top == -INFINITY;
  float tile_total = 0;
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    const float weight = none ? 0.0f : expf(score[i] - new_top);
    shared.Score(query, lane + kThreadsPerQuery * i) = weight;
    tile_total += weight;
  }
  const float correction = none ? 1.0f : expf(top - new_top);
  total = total * correction + QueryReduce(tile_total, Sum());
  top = new_top;
  return correction;
}

// Adds the tile's values to the query's sums; each thread has every fourth group of four columns.
template <int kFours>
__device__ void AddWeightedValues(const Tile& shared, int query, int lane, int padded,
                                  float correction, Four (&sums)[kFours]) {
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    sums[i].x *= correction;
    sums[i].y *= correction;
    sums[i].z *= correction;
    sums[i].w *= correction;
  }
  for (int key = 0; key < kKeyTile; ++key) {
    const float weight = shared.Score(query, key);
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int d = 4 * (lane + kThreadsPerQuery * i);
      if (d >= padded) continue;
      const Four value = LoadFour(shared.values + key * shared.stride + d);
      sums[i].x = fmaf(weight, value.x, sums[i].x);
      sums[i].y = fmaf(weight, value.y, sums[i].y);
      sums[i].z = fmaf(weight, value.z, sums[i].z);
      sums[i].w = fmaf(weight, value.w, sums[i].w);
    }
  }
}

// kFours: how many groups of 4 x 4 columns a head has at most.
template <int kFours>
__global__ void __launch_bounds__(kThreads)
    AttentionKernel(View<const float> q, View<const float> k, View<const float> v,
                    Span<const QueryTile> tiles, Span<const KeyRange> ranges,
                    AttentionNumbers numbers, View<float> out) {
  const Tile shared(numbers.head_dim);
  const QueryTile tile = tiles[blockIdx.x];
  const int head = static_cast<int>(blockIdx.y);
  // q and out may be the last rows alone.
  const int64_t first_row = k.rows - q.rows;
  if (tile.row < first_row) return;
  const int64_t q_row = tile.row - first_row;
  const int64_t q_column = int64_t{head} * numbers.head_dim;
  const int64_t k_column =
      int64_t{head / (numbers.num_heads / numbers.num_kv_heads)} * numbers.head_dim;
  const int padded = Tile::Padded(numbers.head_dim);
  const int query = static_cast<int>(threadIdx.x) / kThreadsPerQuery;
  const int lane = static_cast<int>(threadIdx.x) % kThreadsPerQuery;
  LoadRows(
      q, q_column, numbers.head_dim, shared.stride,
      [&](int i) { return i < tile.count ? q_row + i : -1; }, shared.queries);

  Four sums[kFours] = {};
  float top = -INFINITY, total = 0;
  const int end = tile.place + tile.count;
  int first = 0;
  if (numbers.sliding_window > 0) first = std::max(0, tile.place - numbers.sliding_window + 1);
  for (; first < end; first += kKeyTile) {
    FindKeyRows(tile, ranges, first, end, shared.key_rows);
    __syncthreads();  // and the tile before has been read
    const auto row_of = [&](int i) { return int64_t{shared.key_rows[i]}; };
    LoadRows(k, k_column, numbers.head_dim, shared.stride, row_of, shared.keys);
    __syncthreads();
    ComputeScores(shared, tile, numbers, first);
    __syncthreads();
    LoadRows(v, k_column, numbers.head_dim, shared.stride, row_of, shared.values);
    const float correction = UpdateSoftmax(shared, query, lane, top, total);
    __syncthreads();
    AddWeightedValues(shared, query, lane, padded, correction, sums);
  }
  if (query >= tile.count) return;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const float column[4] = {sums[i].x, sums[i].y, sums[i].z, sums[i].w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int d = 4 * (lane + kThreadsPerQuery * i) + j;
      if (d < numbers.head_dim) out.At(q_row + query, q_column + d) = column[j] / total;
    }
  }
}

}  // namespace

cudaError_t Attention(cudaStream_t stream, View<const float> q, View<const float> k,
                      View<const float> v, Span<const QueryTile> tiles, Span<const KeyRange> ranges,
                      AttentionNumbers numbers, View<float> out) {
  if (tiles.empty()) return cudaSuccess;
  const auto kernel = numbers.head_dim <= 32    ? AttentionKernel<2>
                      : numbers.head_dim <= 64  ? AttentionKernel<4>
                      : numbers.head_dim <= 128 ? AttentionKernel<8>
                                                : AttentionKernel<16>;
  return Launch(
      stream, dim3(static_cast<unsigned>(tiles.size), static_cast<unsigned>(numbers.num_heads)),
      dim3(kThreads), Tile::Bytes(numbers.head_dim), kernel, q, k, v, tiles, ranges, numbers, out);
}

}  // namespace lwq::cuda
