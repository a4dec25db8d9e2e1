#include "worker/engine/io/fp8_blocks.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/tensor/fp8.h"
#include "worker/engine/tensor/half.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

int64_t Blocks(int64_t count) { return count / kFp8Block + (count % kFp8Block != 0 ? 1 : 0); }

absl::Status CheckRows(absl::string_view name, const TensorView& codes, int64_t first_row,
                       const MatrixView& out) {
  const int64_t rows = codes.shape[0], cols = codes.shape[1];
  if (first_row >= 0 && out.rows >= 0 && out.rows <= rows && first_row <= rows - out.rows &&
      out.cols == cols) {
    return absl::OkStatus();
  }
  return Failure(reasons::kConfigMismatch,
                 absl::StrCat("tensor ", name, " is [", rows, ", ", cols, "], rows ", first_row,
                              " to ", first_row + out.rows, " of ", out.cols, " are needed"));
}

absl::Status NotFinite(absl::string_view name, bool nan, int64_t row, int64_t column) {
  return Failure(
      reasons::kNonFiniteWeights,
      absl::StrCat("tensor ", name, " [", row, ", ", column, "] is ",
                   nan ? "F8_E4M3's code for NaN" : "beyond BF16's range once times its scale",
                   "; the file is damaged or was written so: fetch it again"));
}

}  // namespace

bool HasFp8(const Checkpoint& source) {
  return std::any_of(source.tensor_names().begin(), source.tensor_names().end(),
                     [&](const std::string& name) {
                       const auto tensor = source.Get(name);
                       return tensor.ok() && IsFp8(tensor->dtype);
                     });
}

std::string Fp8ScalesName(absl::string_view name) { return absl::StrCat(name, "_scale_inv"); }

absl::Status CheckFp8Scales(absl::string_view name, const std::vector<int64_t>& shape, DType dtype,
                            const std::vector<int64_t>& scales_shape) {
  if (shape.size() == 2 && IsWeightFloat(dtype) &&
      scales_shape == std::vector<int64_t>{Blocks(shape[0]), Blocks(shape[1])}) {
    return absl::OkStatus();
  }
  const std::string expected =
      shape.size() == 2 ? absl::StrCat(" [", Blocks(shape[0]), ", ", Blocks(shape[1]), "]") : "";
  return Failure(reasons::kPackedShape,
                 absl::StrCat("the scales of tensor ", name, " [", absl::StrJoin(shape, ", "),
                              "] are ", NameOf(dtype), " [", absl::StrJoin(scales_shape, ", "),
                              "], expected F32, F16 or BF16", expected,
                              ": one for every block of 128 by 128 of a matrix"));
}

absl::Status ReadFp8Rows(const Checkpoint& source, absl::string_view name, int64_t first_row,
                         MatrixView out) {
  LWQ_ASSIGN_OR_RETURN(const TensorView codes, source.Get(name));
  if (!IsFp8(codes.dtype)) {
    return Failure(
        reasons::kDtypeUnsupported,
        absl::StrCat("tensor ", name, " is ", NameOf(codes.dtype), ", expected F8_E4M3"));
  }
  const std::string scales_name = Fp8ScalesName(name);
  LWQ_ASSIGN_OR_RETURN(const TensorView stored, source.Get(scales_name));
  LWQ_RETURN_IF_ERROR(CheckFp8Scales(name, codes.shape, stored.dtype, stored.shape));
  LWQ_RETURN_IF_ERROR(CheckRows(name, codes, first_row, out));
  Matrix scales(stored.shape[0], stored.shape[1]);
  LWQ_RETURN_IF_ERROR(WidenToFloat(scales_name, stored, /*refuse_non_finite=*/true, scales.view()));
  const int64_t cols = out.cols;
  for (int64_t r = 0; r < out.rows; ++r) {
    const uint8_t* in = codes.bytes.data() + (first_row + r) * cols;
    const float* scale = scales.Row((first_row + r) / kFp8Block);
    for (int64_t k = 0; k < cols; ++k) {
      const float value = BF16ToFloat(FloatToBF16(E4M3ToFloat(in[k]) * scale[k / kFp8Block]));
      if (!std::isfinite(value)) return NotFinite(name, std::isnan(value), first_row + r, k);
      out.Row(r)[k] = value;
    }
  }
  return absl::OkStatus();
}

}  // namespace lwq
