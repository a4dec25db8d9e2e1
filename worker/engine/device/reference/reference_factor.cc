// Second-order information. InverseCholesky in double: H = R R^T with R upper triangular, found
// from the last column to the first, and U = R^-1, so that H^-1 = R^-T R^-1 = U^T U.
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/reference/reference_device.h"

namespace lwq {

absl::Status ReferenceDevice::ScaleAndMirror(float factor, DeviceView<float> a) {
  LWQ_RETURN_IF_ERROR(CheckShape("symmetric matrix", a, a.rows, a.rows));
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j <= i; ++j) Row(a, j)[i] = Row(a, i)[j] *= factor;
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::PermuteLower(DeviceView<const float> a,
                                           DeviceSpan<const int32_t> order, DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("permuted matrix", a, a.rows, a.rows));
  LWQ_RETURN_IF_ERROR(CheckShape("its permutation", out, a.rows, a.rows));
  LWQ_RETURN_IF_ERROR(CheckLength("order", order.size, a.rows));
  const absl::Span<const int32_t> from = space_.Host(order);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < a.rows; ++j) Row(out, i)[j] = j <= i ? Row(a, from[i])[from[j]] : 0;
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::InverseCholesky(DeviceView<float> h) {
  const int64_t n = h.rows;
  if (h.cols != n) {
    return Failure(reasons::kShape,
                   absl::StrCat("factoring a matrix that is not square: ", h.rows, " x ", h.cols));
  }
  std::vector<double> r(n * n, 0.0);
  for (int64_t j = n - 1; j >= 0; --j) {
    for (int64_t i = j; i >= 0; --i) {
      double sum = Row(h, j)[i];
      for (int64_t k = j + 1; k < n; ++k) sum -= r[i * n + k] * r[j * n + k];
      if (i < j) {
        r[i * n + j] = sum / r[j * n + j];
        continue;
      }
      if (!(sum > 0) || !std::isfinite(sum)) {
        return Failure(
            reasons::kNotPositiveDefinite,
            absl::StrCat("factoring a matrix of ", n, ": not positive definite at column ", j));
      }
      r[j * n + j] = std::sqrt(sum);
    }
  }
  std::vector<double> column(n);
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = n - 1; i > j; --i) Row(h, i)[j] = 0;
    for (int64_t i = j; i >= 0; --i) {
      double sum = i == j ? 1.0 : 0.0;
      for (int64_t k = i + 1; k <= j; ++k) sum -= r[i * n + k] * column[k];
      column[i] = sum / r[i * n + i];
      Row(h, i)[j] = static_cast<float>(column[i]);
    }
  }
  return absl::OkStatus();
}

}  // namespace lwq
