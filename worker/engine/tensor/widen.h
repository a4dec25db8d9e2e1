// F16, BF16 and F32 tensors as F32 matrices.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/engine/tensor/matrix.h"
#include "worker/engine/tensor/tensor_view.h"

namespace lwq {

// INVALID_ARGUMENT "DTYPE_UNSUPPORTED" unless the tensor is F16, BF16 or F32, "CONFIG_MISMATCH"
// unless it has the shape [rows, cols], or [cols] for one row.
absl::Status CheckWidenable(absl::string_view name, const TensorView& tensor, int64_t rows,
                            int64_t cols);

// Widens an F16, BF16 or F32 tensor of shape [rows, cols] or [n] (as one row) to F32.
// INVALID_ARGUMENT "NON_FINITE_WEIGHTS" when `refuse_non_finite` and a NaN or infinity is found:
// the message has the count and the first index.
absl::Status WidenToFloat(absl::string_view name, const TensorView& tensor, bool refuse_non_finite,
                          MatrixView out);

}  // namespace lwq
