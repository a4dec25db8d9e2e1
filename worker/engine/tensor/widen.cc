// F16, BF16 and F32 tensors to F32 rows. Bound by memory: the loops are plain so that the compiler
// turns them into vector code; stored data may lie at any address, so it is read with memcpy.
#include "worker/engine/tensor/widen.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

uint16_t LoadHalf(const uint8_t* in, int64_t i) {
  uint16_t bits;
  std::memcpy(&bits, in + 2 * i, sizeof(bits));
  return bits;
}

void WidenBF16(const uint8_t* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = std::bit_cast<float>(uint32_t{LoadHalf(in, i)} << 16);
}

// As F16ToFloat of tensor/half.h, both cases computed and one selected, without branches.
void WidenF16(const uint8_t* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t half = LoadHalf(in, i);
    const uint32_t magnitude = (half & 0x7fffu) << 13;
    // Infinity and NaN need 112 more in the exponent than normal values do.
    const uint32_t rebias = magnitude >= 0x0f800000u ? 0x70000000u : 0x38000000u;
    const uint32_t normal = magnitude + rebias;
    const float subnormal_value =
        static_cast<float>(static_cast<int32_t>(half & 0x3ffu)) * 0x1p-24f;
    const uint32_t subnormal = std::bit_cast<uint32_t>(subnormal_value);
    const uint32_t value = magnitude < 0x00800000u ? subnormal : normal;
    out[i] = std::bit_cast<float>(value | (half & 0x8000u) << 16);
  }
}

void WidenRow(DType dtype, const uint8_t* in, int64_t count, float* out) {
  if (dtype == DType::kBF16) {
    WidenBF16(in, count, out);
  } else if (dtype == DType::kF16) {
    WidenF16(in, count, out);
  } else {
    std::memcpy(out, in, static_cast<size_t>(count) * sizeof(float));
  }
}

bool IsNonFinite(float value) {
  return (std::bit_cast<uint32_t>(value) & 0x7f800000u) == 0x7f800000u;
}

int64_t CountNonFinite(const float* row, int64_t count) {
  int32_t found = 0;  // rows are shorter than 2^31
  for (int64_t i = 0; i < count; ++i) found += IsNonFinite(row[i]) ? 1 : 0;
  return found;
}

int64_t FirstNonFinite(const float* row, int64_t count) {
  int64_t i = 0;
  while (i < count && !IsNonFinite(row[i])) ++i;
  return i;
}

}  // namespace

absl::Status CheckWidenable(absl::string_view name, const TensorView& tensor, int64_t rows,
                            int64_t cols) {
  const std::vector<int64_t>& shape = tensor.shape;
  if (!IsWeightFloat(tensor.dtype)) {
    return Failure(reasons::kDtypeUnsupported,
                   absl::StrCat("tensor ", name, " has dtype ", NameOf(tensor.dtype),
                                ", weights are F16, BF16 or F32"));
  }
  if (tensor.coding != nullptr) {
    return absl::InternalError(absl::StrCat("tensor ", name, " is coded and was read as floats"));
  }
  const bool fits = (shape.size() == 2 && shape[0] == rows && shape[1] == cols) ||
                    (shape.size() == 1 && rows == 1 && shape[0] == cols);
  if (!fits) {
    return Failure(reasons::kConfigMismatch,
                   absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(shape, ", "), "], [",
                                rows, ", ", cols, "] is needed"));
  }
  return absl::OkStatus();
}

absl::Status WidenToFloat(absl::string_view name, const TensorView& tensor, bool refuse_non_finite,
                          MatrixView out) {
  LWQ_RETURN_IF_ERROR(CheckWidenable(name, tensor, out.rows, out.cols));
  const int64_t row_bytes = out.cols * SizeOf(tensor.dtype);
  int64_t num_bad = 0;
  int64_t first_bad = 0;
  for (int64_t r = 0; r < out.rows; ++r) {
    WidenRow(tensor.dtype, tensor.bytes.data() + r * row_bytes, out.cols, out.Row(r));
    if (!refuse_non_finite) continue;
    const int64_t bad = CountNonFinite(out.Row(r), out.cols);
    if (bad > 0 && num_bad == 0) first_bad = r * out.cols + FirstNonFinite(out.Row(r), out.cols);
    num_bad += bad;
  }
  if (num_bad == 0) return absl::OkStatus();
  return Failure(reasons::kNonFiniteWeights,
                 absl::StrCat("tensor ", name, " has ", num_bad, " NaN or infinite of ",
                              out.rows * out.cols, " values, the first at index ", first_bad));
}

}  // namespace lwq
