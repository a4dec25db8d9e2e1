// What a mixture of experts adds: choosing, gathering rows for an expert, adding its answers back.
#pragma once

#include "worker/engine/device/cuda/view.h"

namespace lwq::cuda {

// The most experts that a warp keeps book of.
constexpr int64_t kMostExperts = 2048;

// See Device::ChooseExperts.
cudaError_t ChooseExperts(cudaStream_t stream, View<const float> logits, bool normalized,
                          View<int32_t> chosen, View<float> share);
// to[i] = from[rows[i]]. A row outside [0, from.rows) is zero, and the smallest such i is left in
// *first_outside; in ScatterAddRows it is left out.
cudaError_t GatherRows(cudaStream_t stream, View<const float> from, Span<const int32_t> rows,
                       View<float> to, unsigned long long* first_outside);
// to[rows[i]] += scale[i] * from[i]; no row twice.
cudaError_t ScatterAddRows(cudaStream_t stream, View<const float> from, Span<const int32_t> rows,
                           Span<const float> scale, View<float> to,
                           unsigned long long* first_outside);
// x[r] = x[r] / (1 + exp(-gate[r])).
cudaError_t SigmoidRows(cudaStream_t stream, Span<const float> gate, View<float> x);

}  // namespace lwq::cuda
