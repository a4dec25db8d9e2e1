#include <cmath>

#include "worker/engine/device/cuda/bits.cuh"
#include "worker/engine/device/cuda/grid_code.cuh"
#include "worker/engine/device/cuda/launch.cuh"
#include "worker/engine/device/cuda/reduce.cuh"
#include "worker/engine/device/cuda/row_kernels.h"

namespace lwq::cuda {
namespace {

constexpr size_t kScratchBytes = sizeof(double) * (kRowThreads / kWarp);

// Calls body(c) for the columns of this thread: the block goes over a row side by side.
template <typename Body>
__device__ void ForColumns(int64_t cols, Body body) {
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) body(c);
}

__global__ void __launch_bounds__(kRowThreads)
    RmsNormKernel(View<const float> x, Span<const float> weight, float epsilon, View<float> out) {
  float* scratch = SharedMemory<float>();
  for (int64_t r = blockIdx.x; r < x.rows; r += gridDim.x) {
    float squares = 0;
    ForColumns(x.cols, [&](int64_t c) { squares = fmaf(x.At(r, c), x.At(r, c), squares); });
    squares = BlockReduce(squares, Sum(), scratch);
    const float scale = 1 / sqrtf(squares / static_cast<float>(x.cols) + epsilon);
    ForColumns(x.cols, [&](int64_t c) { out.At(r, c) = x.At(r, c) * scale * weight[c]; });
  }
}

struct ToInt8 {
  __device__ float operator()(float v) const { return rintf(fminf(fmaxf(v, -128.0f), 127.0f)); }
};

// The nearest value of E4M3, which has 448: at 2^-9 below 2^-6, else three bits behind the first.
struct ToE4M3 {
  __device__ float operator()(float v) const {
    v = fminf(fmaxf(v, -448.0f), 448.0f);
    if (fabsf(v) < 0x1p-6f) return rintf(v * 0x1p9f) * 0x1p-9f;
    const uint32_t bits = BitsOf(v);
    return FloatOf((bits + 0x7ffffu + ((bits >> 20) & 1u)) & 0xfff00000u);
  }
};

template <typename Round>
__global__ void __launch_bounds__(kRowThreads)
    RoundRowsKernel(float range, Round round, View<float> x) {
  float* scratch = SharedMemory<float>();
  for (int64_t r = blockIdx.x; r < x.rows; r += gridDim.x) {
    float largest = 0;
    ForColumns(x.cols, [&](int64_t c) { largest = fmaxf(largest, fabsf(x.At(r, c))); });
    const float scale = BlockReduce(largest, Largest(), scratch) / range;
    if (scale == 0) continue;
    ForColumns(x.cols, [&](int64_t c) { x.At(r, c) = round(x.At(r, c) / scale) * scale; });
  }
}

// One pass over the row finds its largest value and the sum of exponentials below it, a second one
// writes.
__global__ void __launch_bounds__(kRowThreads) LogSoftmaxKernel(View<float> logits) {
  float* scratch = SharedMemory<float>();
  for (int64_t r = blockIdx.x; r < logits.rows; r += gridDim.x) {
    float top = -INFINITY, total = 0;
    ForColumns(logits.cols, [&](int64_t c) {
      const float value = logits.At(r, c);
      if (value > top) {
        total = total * expf(top - value) + 1;
        top = value;
      } else if (!(value == -INFINITY)) {
        total += expf(value - top);
      }
    });
    const float row_top = BlockReduce(top, Largest(), scratch);
    if (top > -INFINITY) total *= expf(top - row_top);
    total = BlockReduce(total, Sum(), scratch);
    const float log_total = row_top + logf(total);
    ForColumns(logits.cols, [&](int64_t c) { logits.At(r, c) -= log_total; });
  }
}

__global__ void __launch_bounds__(kRowThreads)
    KlDivergenceKernel(View<const float> source, View<const float> candidate, Span<double> kl) {
  double* scratch = SharedMemory<double>();
  for (int64_t r = blockIdx.x; r < source.rows; r += gridDim.x) {
    double sum = 0;
    ForColumns(source.cols, [&](int64_t c) {
      const float p = source.At(r, c);
      if (p > -INFINITY) {
        sum += static_cast<double>(expf(p)) *
               (static_cast<double>(p) - static_cast<double>(candidate.At(r, c)));
      }
    });
    sum = BlockReduce(sum, Sum(), scratch);
    if (threadIdx.x == 0) kl[r] = sum;
  }
}

// The largest value and where it is first; then the exponentials below what is the largest so far.
__global__ void __launch_bounds__(kRowThreads)
    SumLogitsKernel(View<const float> logits, int64_t first_token, Span<float> top,
                    Span<int32_t> best, Span<double> total) {
  double* scratch = SharedMemory<double>();
  for (int64_t r = blockIdx.x; r < logits.rows; r += gridDim.x) {
    float largest = -INFINITY;
    int64_t place = logits.cols;
    ForColumns(logits.cols, [&](int64_t c) {
      if (logits.At(r, c) > largest) {
        largest = logits.At(r, c);
        place = c;
      }
    });
    const float row_largest = BlockReduce(largest, Largest(), reinterpret_cast<float*>(scratch));
    place = BlockReduce(largest == row_largest ? place : logits.cols, Smallest(),
                        reinterpret_cast<int64_t*>(scratch));
    const bool begins = first_token == 0;
    const float before = top[r];
    const bool higher = begins || row_largest > before;
    const float now = higher ? row_largest : before;
    double sum = 0;
    ForColumns(logits.cols,
               [&](int64_t c) { sum += static_cast<double>(expf(logits.At(r, c) - now)); });
    sum = BlockReduce(sum, Sum(), scratch);
    if (threadIdx.x != 0) continue;
    if (!begins) {
      sum +=
          total[r] * (higher ? exp(static_cast<double>(before) - static_cast<double>(now)) : 1.0);
    }
    total[r] = sum;
    if (higher) {
      top[r] = now;
      best[r] = static_cast<int32_t>(first_token + place);
    }
  }
}

__global__ void __launch_bounds__(kRowThreads)
    SumLogitGapsKernel(View<const float> source, Span<const float> source_top,
                       View<const float> candidate, int64_t first_token, Span<float> top,
                       Span<double> total) {
  double* scratch = SharedMemory<double>();
  for (int64_t r = blockIdx.x; r < source.rows; r += gridDim.x) {
    const float now = source_top[r];
    double sum = 0;
    ForColumns(source.cols, [&](int64_t c) {
      const float p = source.At(r, c);
      const float weight = expf(p - now);
      // What has no probability has no share.
      if (weight > 0) {
        sum += static_cast<double>(weight) * static_cast<double>(p - candidate.At(r, c));
      }
    });
    sum = BlockReduce(sum, Sum(), scratch);
    if (threadIdx.x != 0) continue;
    if (first_token != 0) {
      sum += total[r] * exp(static_cast<double>(top[r]) - static_cast<double>(now));
    }
    total[r] = sum;
    top[r] = now;
  }
}

__global__ void __launch_bounds__(kRowThreads)
    RowCosineKernel(View<const float> x, View<const float> y, Span<double> out) {
  double* scratch = SharedMemory<double>();
  for (int64_t r = blockIdx.x; r < x.rows; r += gridDim.x) {
    double xy = 0, xx = 0, yy = 0;
    ForColumns(x.cols, [&](int64_t c) {
      const double a = x.At(r, c), b = y.At(r, c);
      xy += a * b;
      xx += a * a;
      yy += b * b;
    });
    xy = BlockReduce(xy, Sum(), scratch);
    xx = BlockReduce(xx, Sum(), scratch);
    yy = BlockReduce(yy, Sum(), scratch);
    if (threadIdx.x == 0) out[r] = xx > 0 && yy > 0 ? xy / (sqrt(xx) * sqrt(yy)) : 0.0;
  }
}

__global__ void __launch_bounds__(kRowThreads)
    GridErrorKernel(View<const float> weight, View<const uint8_t> codes, GroupedGrid grid,
                    View<const float> scales, View<const float> zeros, Span<double> error,
                    Span<double> square) {
  double* scratch = SharedMemory<double>();
  for (int64_t r = blockIdx.x; r < weight.rows; r += gridDim.x) {
    double errors = 0, squares = 0;
    ForColumns(weight.cols, [&](int64_t c) {
      const int64_t group = c / grid.group_size;
      const float w = weight.At(r, c);
      const float steps = static_cast<float>(codes.At(r, c)) - ZeroAt(grid, zeros, r, group);
      const double difference =
          static_cast<double>(w) - static_cast<double>(scales.At(r, group) * steps);
      errors += difference * difference;
      squares += static_cast<double>(w) * static_cast<double>(w);
    });
    errors = BlockReduce(errors, Sum(), scratch);
    squares = BlockReduce(squares, Sum(), scratch);
    if (threadIdx.x == 0) {
      error[r] = errors;
      square[r] = squares;
    }
  }
}

__global__ void __launch_bounds__(kRowThreads)
    RopeKernel(Span<const int32_t> positions, View<const float> cosine, View<const float> sine,
               int64_t head_dim, View<float> x) {
  const int64_t half = cosine.cols, pairs = x.cols / head_dim * half;
  for (int64_t r = blockIdx.x; r < x.rows; r += gridDim.x) {
    const int64_t position = positions[r];
    ForColumns(pairs, [&](int64_t at) {
      const int64_t i = at % half;
      float* pair = x.Row(r) + at / half * head_dim + i;
      const float c = cosine.At(position, i), s = sine.At(position, i);
      const float a = pair[0], b = pair[half];
      pair[0] = a * c - b * s;
      pair[half] = b * c + a * s;
    });
  }
}

}  // namespace

cudaError_t RmsNorm(cudaStream_t stream, View<const float> x, Span<const float> weight,
                    float epsilon, View<float> out) {
  return LaunchRows(stream, x.rows, kScratchBytes, RmsNormKernel, x, weight, epsilon, out);
}
cudaError_t RoundRowsToInt8(cudaStream_t stream, float range, View<float> x) {
  return LaunchRows(stream, x.rows, kScratchBytes, RoundRowsKernel<ToInt8>, range, ToInt8(), x);
}
cudaError_t RoundRowsToE4M3(cudaStream_t stream, float range, View<float> x) {
  return LaunchRows(stream, x.rows, kScratchBytes, RoundRowsKernel<ToE4M3>, range, ToE4M3(), x);
}
cudaError_t LogSoftmax(cudaStream_t stream, View<float> logits) {
  return LaunchRows(stream, logits.rows, kScratchBytes, LogSoftmaxKernel, logits);
}
cudaError_t KlDivergence(cudaStream_t stream, View<const float> source, View<const float> candidate,
                         Span<double> kl) {
  return LaunchRows(stream, source.rows, kScratchBytes, KlDivergenceKernel, source, candidate, kl);
}
cudaError_t SumLogits(cudaStream_t stream, View<const float> logits, int64_t first_token,
                      Span<float> top, Span<int32_t> best, Span<double> total) {
  if (logits.cols == 0) return cudaSuccess;
  return LaunchRows(stream, logits.rows, kScratchBytes, SumLogitsKernel, logits, first_token, top,
                    best, total);
}
cudaError_t SumLogitGaps(cudaStream_t stream, View<const float> source,
                         Span<const float> source_top, View<const float> candidate,
                         int64_t first_token, Span<float> top, Span<double> total) {
  return LaunchRows(stream, source.rows, kScratchBytes, SumLogitGapsKernel, source, source_top,
                    candidate, first_token, top, total);
}
cudaError_t RowCosine(cudaStream_t stream, View<const float> x, View<const float> y,
                      Span<double> out) {
  return LaunchRows(stream, x.rows, kScratchBytes, RowCosineKernel, x, y, out);
}
cudaError_t GridError(cudaStream_t stream, View<const float> weight, View<const uint8_t> codes,
                      GroupedGrid grid, View<const float> scales, View<const float> zeros,
                      Span<double> error, Span<double> square) {
  return LaunchRows(stream, weight.rows, kScratchBytes, GridErrorKernel, weight, codes, grid,
                    scales, zeros, error, square);
}
cudaError_t Rope(cudaStream_t stream, Span<const int32_t> positions, View<const float> cosine,
                 View<const float> sine, int64_t head_dim, View<float> x) {
  return LaunchRows(stream, x.rows, 0, RopeKernel, positions, cosine, sine, head_dim, x);
}

}  // namespace lwq::cuda
