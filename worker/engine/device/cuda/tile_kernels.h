// Square matrices and transposes, by tiles that go through shared memory so that reads and writes
// both follow the rows.
#pragma once

#include "worker/engine/device/cuda/view.h"

namespace lwq::cuda {

// to[j, i] = from[i, j], rounded to BF16 in the second.
cudaError_t Transpose(cudaStream_t stream, View<const float> from, View<float> to);
cudaError_t Transpose(cudaStream_t stream, View<const float> from, View<uint16_t> to);

// The lower triangle of a [n, n] times `factor`, and the upper one its mirror image.
cudaError_t ScaleAndMirror(cudaStream_t stream, float factor, View<float> a);

// out[i, j] = h[n - 1 - j, n - 1 - i] for j <= i, else 0: the lower triangle of the symmetric h
// with rows and columns in reverse.
cudaError_t ReverseLower(cudaStream_t stream, View<const float> h, View<float> out);

// out[i, j] = lower[n - 1 - i, n - 1 - j] for j >= i, else 0. What is not finite, or not above 0 on
// the diagonal, leaves the smallest such j in *first_bad.
cudaError_t ReverseFactor(cudaStream_t stream, View<const float> lower, View<float> out,
                          unsigned long long* first_bad);

}  // namespace lwq::cuda
