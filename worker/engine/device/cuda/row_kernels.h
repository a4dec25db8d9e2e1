// Rows, each reduced by one block: the norm, what the evaluation reads from logits, errors of
// grids; and the rotation of each row by its position. Sums have a fixed order.
#pragma once

#include "worker/engine/device/cuda/element_kernels.h"
#include "worker/engine/device/cuda/view.h"

namespace lwq::cuda {

cudaError_t RmsNorm(cudaStream_t stream, View<const float> x, Span<const float> weight,
                    float epsilon, View<float> out);
// Each row to 8 bits and back, with the scale at which its largest magnitude becomes `range`
// (tensor/activation_rule.h).
cudaError_t RoundRowsToInt8(cudaStream_t stream, float range, View<float> x);
cudaError_t RoundRowsToE4M3(cudaStream_t stream, float range, View<float> x);
cudaError_t LogSoftmax(cudaStream_t stream, View<float> logits);
cudaError_t KlDivergence(cudaStream_t stream, View<const float> source, View<const float> candidate,
                         Span<double> kl);
// Logits [T, n] of the tokens from `first_token` on into each row's sums (device.h, SumLogits).
cudaError_t SumLogits(cudaStream_t stream, View<const float> logits, int64_t first_token,
                      Span<float> top, Span<int32_t> best, Span<double> total);
cudaError_t SumLogitGaps(cudaStream_t stream, View<const float> source,
                         Span<const float> source_top, View<const float> candidate,
                         int64_t first_token, Span<float> top, Span<double> total);
cudaError_t RowCosine(cudaStream_t stream, View<const float> x, View<const float> y,
                      Span<double> out);
cudaError_t GridError(cudaStream_t stream, View<const float> weight, View<const uint8_t> codes,
                      GroupedGrid grid, View<const float> scales, View<const float> zeros,
                      Span<double> error, Span<double> square);
// cosine and sine: [positions, half]; row r of x, heads of head_dim, stands at positions[r].
cudaError_t Rope(cudaStream_t stream, Span<const int32_t> positions, View<const float> cosine,
                 View<const float> sine, int64_t head_dim, View<float> x);

}  // namespace lwq::cuda
