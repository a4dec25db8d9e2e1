// Rows of tensors that are not stored as floats one after the other: 8-bit floats with scales
// (fp8_blocks.h), and whatever has a coding (tensor/row_coding.h), as all of a GGUF file's blocks.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/io/fp8_blocks.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq {

inline bool IsCoded(const TensorView& tensor) {
  return tensor.coding != nullptr || IsFp8(tensor.dtype);
}
// What an artifact keeps a tensor of `source` as where it stays dense: its own type where it is not
// coded. Of blocks, which are read as F32, it is narrower than the numbers may be (GgufKeptAs).
DType KeptAs(const Checkpoint& source, const TensorView& tensor);

// Rows [first_row, first_row + out.rows) of a tensor of `source` that IsCoded; a vector is one row.
// Errors: those of ReadFp8Rows.
absl::Status ReadCodedRows(const Checkpoint& source, absl::string_view name, int64_t first_row,
                           MatrixView out);

// What the weights of `source` are stored as, for people; "" where they are plain floats.
std::string DescribeCoding(const Checkpoint& source);

}  // namespace lwq
