#include <cmath>

#include "worker/engine/device/cuda/bits.cuh"
#include "worker/engine/device/cuda/element_kernels.h"
#include "worker/engine/device/cuda/grid_code.cuh"
#include "worker/engine/device/cuda/launch.cuh"
#include "worker/engine/device/cuda/reduce.cuh"

namespace lwq::cuda {
namespace {

__global__ void WidenBF16Kernel(View<const uint16_t> from, View<float> to) {
  ForEachElement(to.rows, to.cols,
                 [&](int64_t r, int64_t c) { to.At(r, c) = WidenBF16(from.At(r, c)); });
}

__global__ void WidenF16Kernel(View<const uint16_t> from, View<float> to) {
  ForEachElement(to.rows, to.cols,
                 [&](int64_t r, int64_t c) { to.At(r, c) = WidenF16(from.At(r, c)); });
}

__global__ void RoundToBF16Kernel(View<const float> from, View<uint16_t> to) {
  ForEachElement(to.rows, to.cols,
                 [&](int64_t r, int64_t c) { to.At(r, c) = RoundToBF16(from.At(r, c)); });
}

__global__ void CopyKernel(View<const float> from, View<float> to) {
  ForEachElement(to.rows, to.cols, [&](int64_t r, int64_t c) { to.At(r, c) = from.At(r, c); });
}

template <typename T>
__global__ void GatherKernel(View<const T> from, Span<const int32_t> columns, View<T> to,
                             unsigned long long* first_outside) {
  ForEachElement(to.rows, to.cols, [&](int64_t r, int64_t c) {
    const int64_t column = columns[c];
    const bool inside = column >= 0 && column < from.cols;
    to.At(r, c) = inside ? from.At(r, column) : T{0};
    if (!inside) atomicMin(first_outside, static_cast<unsigned long long>(c));
  });
}

__global__ void PickKernel(View<const float> m, Span<const int32_t> rows,
                           Span<const int32_t> columns, Span<float> out,
                           unsigned long long* first_outside) {
  ForEachElement(1, out.size, [&](int64_t, int64_t i) {
    const int64_t row = rows[i], column = columns[i];
    const bool inside = row >= 0 && row < m.rows && column >= 0 && column < m.cols;
    out[i] = inside ? m.At(row, column) : 0.0f;
    if (!inside) atomicMin(first_outside, static_cast<unsigned long long>(i));
  });
}

__global__ void FindNotFiniteKernel(View<const float> x, unsigned long long* first) {
  const unsigned long long none = ~0ull;
  unsigned long long found = none;
  ForEachElement(x.rows, x.cols, [&](int64_t r, int64_t c) {
    const unsigned long long at = static_cast<unsigned long long>(r * x.cols + c);
    // An exponent of ones is an infinity or a NaN.
    if ((BitsOf(x.At(r, c)) & 0x7f800000u) == 0x7f800000u && at < found) found = at;
  });
  if (found != none) atomicMin(first, found);
}

__global__ void ReadElementKernel(View<const float> x, const unsigned long long* first,
                                  float* value) {
  const unsigned long long cols = static_cast<unsigned long long>(x.cols);
  if (*first != ~0ull) {
    *value = x.At(static_cast<int64_t>(*first / cols), static_cast<int64_t>(*first % cols));
  }
}

__device__ float Silu(float g) { return g / (1 + expf(-g)); }

__device__ float GeluTanh(float g) {
  constexpr float kRootOfTwoOverPi = 0.79788456f;
  const float u = kRootOfTwoOverPi * (g + 0.044715f * g * g * g);
  return g / (1 + expf(-2 * u));
}

template <GateKind kind>
__global__ void GateKernel(View<const float> gate, View<const float> up, View<float> out) {
  ForEachElement(out.rows, out.cols, [&](int64_t r, int64_t c) {
    const float g = gate.At(r, c);
    out.At(r, c) = (kind == GateKind::kSilu ? Silu(g) : GeluTanh(g)) * up.At(r, c);
  });
}

__global__ void SoftCapKernel(float cap, View<float> x) {
  ForEachElement(x.rows, x.cols,
                 [&](int64_t r, int64_t c) { x.At(r, c) = cap * tanhf(x.At(r, c) / cap); });
}

__global__ void AddKernel(View<const float> x, View<float> y) {
  ForEachElement(y.rows, y.cols, [&](int64_t r, int64_t c) { y.At(r, c) += x.At(r, c); });
}

__global__ void SubtractKernel(View<const float> a, View<const float> b, View<float> out) {
  ForEachElement(out.rows, out.cols,
                 [&](int64_t r, int64_t c) { out.At(r, c) = a.At(r, c) - b.At(r, c); });
}

__global__ void FillRowsKernel(Span<const float> bias, View<float> y) {
  ForEachElement(y.rows, y.cols, [&](int64_t r, int64_t c) { y.At(r, c) = bias[c]; });
}

__global__ void AddToRowsKernel(Span<const float> bias, View<float> y) {
  ForEachElement(y.rows, y.cols, [&](int64_t r, int64_t c) { y.At(r, c) += bias[c]; });
}

__global__ void RoundToGridKernel(View<const float> weight, GroupedGrid grid,
                                  View<const float> scales, View<const float> zeros,
                                  View<uint8_t> codes) {
  ForEachElement(weight.rows, weight.cols, [&](int64_t r, int64_t c) {
    const int64_t group = c / grid.group_size;
    codes.At(r, c) = static_cast<uint8_t>(CodeOf(weight.At(r, c), scales.At(r, group),
                                                 ZeroAt(grid, zeros, r, group), grid.largest_code));
  });
}

// A code of at most 8 bits lies in one byte or in two.
__global__ void UnpackCodesKernel(View<const uint8_t> packed, int bits, View<uint8_t> codes) {
  ForEachElement(codes.rows, codes.cols, [&](int64_t r, int64_t c) {
    const int64_t first = c * bits, byte = first / 8;
    const int shift = static_cast<int>(first % 8);
    unsigned stream = packed.At(r, byte);
    if (shift + bits > 8) stream |= static_cast<unsigned>(packed.At(r, byte + 1)) << 8;
    codes.At(r, c) = static_cast<uint8_t>((stream >> shift) & ((1u << bits) - 1));
  });
}

__global__ void DequantizeKernel(View<const uint8_t> codes, GroupedGrid grid,
                                 View<const float> scales, View<const float> zeros,
                                 View<float> weight) {
  ForEachElement(weight.rows, weight.cols, [&](int64_t r, int64_t c) {
    const int64_t group = c / grid.group_size;
    weight.At(r, c) =
        scales.At(r, group) * (static_cast<float>(codes.At(r, c)) - ZeroAt(grid, zeros, r, group));
  });
}

__global__ void DequantizeBlocksKernel(View<const uint8_t> blocks, BlockLayout layout,
                                       View<float> weight) {
  ForEachElement(weight.rows, weight.cols, [&](int64_t r, int64_t c) {
    const uint8_t* block = blocks.Row(r) + c / layout.block_size * layout.block_bytes;
    const int i = static_cast<int>(c % layout.block_size), j = i / layout.sub_block_size;
    const float scale = WidenF16(BlockLayout::HalfAt(block, layout.scale_at));
    const float step = scale * static_cast<float>(layout.SubScale(block, j));
    float value = step * static_cast<float>(layout.Level(layout.Code(block, i)));
    if (layout.min_at >= 0) {
      const float min = WidenF16(BlockLayout::HalfAt(block, layout.min_at));
      const float offset = min * static_cast<float>(layout.SubMin(block, j));
      value = layout.min_added ? value + offset : value - offset;
    }
    weight.At(r, c) = value;
  });
}

__global__ void DequantizeE4M3Kernel(View<const uint8_t> codes, View<const float> scales,
                                     View<float> weight) {
  ForEachElement(weight.rows, weight.cols, [&](int64_t r, int64_t c) {
    weight.At(r, c) = scales.At(r, 0) * WidenE4M3(codes.At(r, c));
  });
}

__global__ void PermuteLowerKernel(View<const float> a, Span<const int32_t> order,
                                   View<float> out) {
  ForEachElement(out.rows, out.cols, [&](int64_t r, int64_t c) {
    out.At(r, c) = c <= r ? a.At(order[r], order[c]) : 0.0f;
  });
}

}  // namespace

cudaError_t WidenBF16(cudaStream_t stream, View<const uint16_t> from, View<float> to) {
  return LaunchElements(stream, to.rows, to.cols, WidenBF16Kernel, from, to);
}
cudaError_t WidenF16(cudaStream_t stream, View<const uint16_t> from, View<float> to) {
  return LaunchElements(stream, to.rows, to.cols, WidenF16Kernel, from, to);
}
cudaError_t RoundToBF16(cudaStream_t stream, View<const float> from, View<uint16_t> to) {
  return LaunchElements(stream, to.rows, to.cols, RoundToBF16Kernel, from, to);
}
cudaError_t CopyElements(cudaStream_t stream, View<const float> from, View<float> to) {
  return LaunchElements(stream, to.rows, to.cols, CopyKernel, from, to);
}

cudaError_t GatherColumns(cudaStream_t stream, View<const float> from, Span<const int32_t> columns,
                          View<float> to, unsigned long long* first_outside) {
  return LaunchElements(stream, to.rows, to.cols, GatherKernel<float>, from, columns, to,
                        first_outside);
}
cudaError_t GatherColumns(cudaStream_t stream, View<const uint8_t> from,
                          Span<const int32_t> columns, View<uint8_t> to,
                          unsigned long long* first_outside) {
  return LaunchElements(stream, to.rows, to.cols, GatherKernel<uint8_t>, from, columns, to,
                        first_outside);
}

cudaError_t Pick(cudaStream_t stream, View<const float> m, Span<const int32_t> rows,
                 Span<const int32_t> columns, Span<float> out, unsigned long long* first_outside) {
  return LaunchElements(stream, 1, out.size, PickKernel, m, rows, columns, out, first_outside);
}
cudaError_t FindNotFinite(cudaStream_t stream, View<const float> x, unsigned long long* first,
                          float* value) {
  if (x.empty()) return cudaSuccess;
  const cudaError_t error = LaunchElements(stream, x.rows, x.cols, FindNotFiniteKernel, x, first);
  if (error != cudaSuccess) return error;
  return Launch(stream, dim3(1), dim3(1), 0, ReadElementKernel, x,
                static_cast<const unsigned long long*>(first), value);
}

cudaError_t Gate(cudaStream_t stream, View<const float> gate, View<const float> up, GateKind kind,
                 View<float> out) {
  if (kind == GateKind::kSilu) {
    return LaunchElements(stream, out.rows, out.cols, GateKernel<GateKind::kSilu>, gate, up, out);
  }
  return LaunchElements(stream, out.rows, out.cols, GateKernel<GateKind::kGeluTanh>, gate, up, out);
}
cudaError_t SoftCap(cudaStream_t stream, float cap, View<float> x) {
  return LaunchElements(stream, x.rows, x.cols, SoftCapKernel, cap, x);
}
cudaError_t Add(cudaStream_t stream, View<const float> x, View<float> y) {
  return LaunchElements(stream, y.rows, y.cols, AddKernel, x, y);
}
cudaError_t Subtract(cudaStream_t stream, View<const float> a, View<const float> b,
                     View<float> out) {
  return LaunchElements(stream, out.rows, out.cols, SubtractKernel, a, b, out);
}
cudaError_t FillRows(cudaStream_t stream, Span<const float> bias, View<float> y) {
  return LaunchElements(stream, y.rows, y.cols, FillRowsKernel, bias, y);
}
cudaError_t AddToRows(cudaStream_t stream, Span<const float> bias, View<float> y) {
  return LaunchElements(stream, y.rows, y.cols, AddToRowsKernel, bias, y);
}

cudaError_t RoundToGrid(cudaStream_t stream, View<const float> weight, GroupedGrid grid,
                        View<const float> scales, View<const float> zeros, View<uint8_t> codes) {
  return LaunchElements(stream, weight.rows, weight.cols, RoundToGridKernel, weight, grid, scales,
                        zeros, codes);
}
cudaError_t UnpackCodes(cudaStream_t stream, View<const uint8_t> packed, int bits,
                        View<uint8_t> codes) {
  return LaunchElements(stream, codes.rows, codes.cols, UnpackCodesKernel, packed, bits, codes);
}
cudaError_t Dequantize(cudaStream_t stream, View<const uint8_t> codes, GroupedGrid grid,
                       View<const float> scales, View<const float> zeros, View<float> weight) {
  return LaunchElements(stream, weight.rows, weight.cols, DequantizeKernel, codes, grid, scales,
                        zeros, weight);
}

cudaError_t DequantizeBlocks(cudaStream_t stream, View<const uint8_t> blocks,
                             const BlockLayout& layout, View<float> weight) {
  return LaunchElements(stream, weight.rows, weight.cols, DequantizeBlocksKernel, blocks, layout,
                        weight);
}
cudaError_t DequantizeE4M3(cudaStream_t stream, View<const uint8_t> codes, View<const float> scales,
                           View<float> weight) {
  return LaunchElements(stream, weight.rows, weight.cols, DequantizeE4M3Kernel, codes, scales,
                        weight);
}

cudaError_t PermuteLower(cudaStream_t stream, View<const float> a, Span<const int32_t> order,
                         View<float> out) {
  return LaunchElements(stream, out.rows, out.cols, PermuteLowerKernel, a, order, out);
}

}  // namespace lwq::cuda
