#include "worker/engine/io/stored_rows.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/gguf/gguf_config.h"
#include "worker/engine/tensor/row_coding.h"

namespace lwq {

absl::Status ReadCodedRows(const Checkpoint& source, absl::string_view name, int64_t first_row,
                           MatrixView out) {
  LWQ_ASSIGN_OR_RETURN(const TensorView tensor, source.Get(name));
  if (tensor.coding == nullptr) return ReadFp8Rows(source, name, first_row, out);
  const bool vector = tensor.shape.size() == 1;
  const int64_t rows = vector ? 1 : tensor.shape[0];
  if (first_row < 0 || out.rows < 0 || out.rows > rows || first_row > rows - out.rows ||
      out.cols != tensor.shape.back()) {
    return Failure(
        reasons::kConfigMismatch,
        absl::StrCat("tensor ", name, " is [", absl::StrJoin(tensor.shape, ", "), "], rows ",
                     first_row, " to ", first_row + out.rows, " of ", out.cols, " are needed"));
  }
  tensor.coding->Read(tensor, first_row, out);
  for (int64_t r = 0; r < out.rows; ++r) {
    for (int64_t c = 0; c < out.cols; ++c) {
      if (std::isfinite(out.Row(r)[c])) continue;
      return Failure(reasons::kNonFiniteWeights,
                     absl::StrCat("tensor ", name, " [", first_row + r, ", ", c,
                                  "] is NaN or infinite; the file is damaged or was written so"));
    }
  }
  return absl::OkStatus();
}

DType KeptAs(const Checkpoint& source, const TensorView& tensor) {
  if (IsFp8(tensor.dtype)) return kFp8ReadAs;
  // Norms and biases are coded too, for the order or the 1 that is added; they stay what they are.
  const bool matrix = tensor.coding != nullptr && tensor.shape.size() > 1;
  if (!matrix || tensor.dtype != DType::kF32 || source.gguf() == nullptr) return tensor.dtype;
  return GgufKeptAs(source.gguf()->file().header());
}

std::string DescribeCoding(const Checkpoint& source) {
  if (source.gguf() != nullptr) return source.gguf()->description();
  return HasFp8(source) ? kFp8Description : "";
}

}  // namespace lwq
