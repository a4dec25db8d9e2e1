// Weights in 8-bit floats with a scale for every block of 128 by 128, as DeepSeek's and Qwen3's FP8
// models store them: "<name>" F8_E4M3 [rows, cols] beside "<name>_scale_inv"
// [ceil(rows / 128), ceil(cols / 128)]. A model of them is read as one of BF16: each product of
// value and scale, rounded to nearest, ties to even.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq {

inline constexpr DType kFp8ReadAs = DType::kBF16;
inline constexpr int64_t kFp8Block = 128;
// What a manifest calls the weights of such a source.
inline constexpr char kFp8Description[] = "F8_E4M3 in blocks of 128 by 128, read as BF16";

inline bool IsFp8(DType dtype) { return dtype == DType::kF8E4M3; }
bool HasFp8(const Checkpoint& source);
// The tensor with the scales of `name`.
std::string Fp8ScalesName(absl::string_view name);

// DATA_LOSS "PACKED_SHAPE" unless scales of that type and shape are those of a weight of `shape`.
absl::Status CheckFp8Scales(absl::string_view name, const std::vector<int64_t>& shape, DType dtype,
                            const std::vector<int64_t>& scales_shape);

// Rows [first_row, first_row + out.rows) of a tensor that IsFp8, as numbers that BF16 has. `source`
// holds it and its scales. NOT_FOUND "TENSOR_MISSING"; DATA_LOSS "PACKED_SHAPE"; INVALID_ARGUMENT
// "NON_FINITE_WEIGHTS", "DTYPE_UNSUPPORTED" for a tensor of another type, "CONFIG_MISMATCH" for
// rows that it does not have.
absl::Status ReadFp8Rows(const Checkpoint& source, absl::string_view name, int64_t first_row,
                         MatrixView out);

}  // namespace lwq
