// Element by element: widening, gathering, activations, residuals, biases, rounding to a grid and
// back. Each starts its kernel on `stream` and returns what the start gave.
#pragma once

#include "worker/engine/device/cuda/view.h"
#include "worker/engine/tensor/block_layout.h"

namespace lwq::cuda {

// A group of columns has one scale; `group_size` columns each, a symmetric grid has one zero.
struct GroupedGrid {
  int64_t group_size;
  bool symmetric;
  float symmetric_zero;
  float largest_code;
};

cudaError_t WidenBF16(cudaStream_t stream, View<const uint16_t> from, View<float> to);
cudaError_t WidenF16(cudaStream_t stream, View<const uint16_t> from, View<float> to);
// to = from, each rounded to BF16; or as it is.
cudaError_t RoundToBF16(cudaStream_t stream, View<const float> from, View<uint16_t> to);
cudaError_t CopyElements(cudaStream_t stream, View<const float> from, View<float> to);

// to[:, j] = from[:, columns[j]]. A column outside [0, from.cols) is zero, and the smallest such j
// is left in *first_outside.
cudaError_t GatherColumns(cudaStream_t stream, View<const float> from, Span<const int32_t> columns,
                          View<float> to, unsigned long long* first_outside);
cudaError_t GatherColumns(cudaStream_t stream, View<const uint8_t> from,
                          Span<const int32_t> columns, View<uint8_t> to,
                          unsigned long long* first_outside);
// out[i] = m[rows[i], columns[i]]; the first place outside goes to `first_outside`.
cudaError_t Pick(cudaStream_t stream, View<const float> m, Span<const int32_t> rows,
                 Span<const int32_t> columns, Span<float> out, unsigned long long* first_outside);
// *first = the smallest r * cols + c of an element that is not finite, *value = that element.
cudaError_t FindNotFinite(cudaStream_t stream, View<const float> x, unsigned long long* first,
                          float* value);

enum class GateKind { kSilu, kGeluTanh };
// out = activation(gate) * up; out may be one of them.
cudaError_t Gate(cudaStream_t stream, View<const float> gate, View<const float> up, GateKind kind,
                 View<float> out);
cudaError_t SoftCap(cudaStream_t stream, float cap, View<float> x);
cudaError_t Add(cudaStream_t stream, View<const float> x, View<float> y);
cudaError_t Subtract(cudaStream_t stream, View<const float> a, View<const float> b,
                     View<float> out);
// y = bias, or y += bias, in each row.
cudaError_t FillRows(cudaStream_t stream, Span<const float> bias, View<float> y);
cudaError_t AddToRows(cudaStream_t stream, Span<const float> bias, View<float> y);

cudaError_t RoundToGrid(cudaStream_t stream, View<const float> weight, GroupedGrid grid,
                        View<const float> scales, View<const float> zeros, View<uint8_t> codes);
// codes[r, j] = code j of the stream in row r.
cudaError_t UnpackCodes(cudaStream_t stream, View<const uint8_t> packed, int bits,
                        View<uint8_t> codes);
cudaError_t Dequantize(cudaStream_t stream, View<const uint8_t> codes, GroupedGrid grid,
                       View<const float> scales, View<const float> zeros, View<float> weight);

// weight = the values of blocks that lie so; scale times the value of 8-bit floats.
cudaError_t DequantizeBlocks(cudaStream_t stream, View<const uint8_t> blocks,
                             const BlockLayout& layout, View<float> weight);
cudaError_t DequantizeE4M3(cudaStream_t stream, View<const uint8_t> codes, View<const float> scales,
                           View<float> weight);

// out[i, j] = a[order[i], order[j]] for j <= i, else 0.
cudaError_t PermuteLower(cudaStream_t stream, View<const float> a, Span<const int32_t> order,
                         View<float> out);

}  // namespace lwq::cuda
