// Packing and unpacking of one linear. docs/formats/compressed_tensors.md.
#include "worker/engine/artifact/compressed_tensors.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/pack_bits.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

absl::Status NotPackable(absl::string_view module, absl::string_view what) {
  return Failure(absl::StatusCode::kInternal, "NOT_PACKABLE",
                 absl::StrCat("packing ", module, ": ", what));
}

absl::Status PackedShape(absl::string_view module, absl::string_view suffix,
                         const TensorView& found, absl::string_view expected) {
  return CorruptFailure("PACKED_SHAPE",
                        absl::StrCat("tensor ", module, suffix, " is ", NameOf(found.dtype), " [",
                                     absl::StrJoin(found.shape, ", "), "], expected ", expected));
}

uint8_t* Bytes(std::string& bytes) { return reinterpret_cast<uint8_t*>(bytes.data()); }

absl::Status PackCodes(absl::string_view module, const QuantizedLinear& linear,
                       std::string* bytes) {
  const int bits = linear.grid.bits;
  uint8_t all = 0;
  for (uint8_t code : linear.codes) all |= code;
  if (all >> bits != 0) {
    return NotPackable(module, absl::StrCat("a code does not fit ", bits, " bits"));
  }
  const int64_t row_bytes = 4 * PackedWords(linear.in_features, bits);
  for (int64_t r = 0; r < linear.out_features; ++r) {
    PackBits(linear.codes.data() + r * linear.in_features, linear.in_features, bits,
             Bytes(*bytes) + r * row_bytes);
  }
  return absl::OkStatus();
}

absl::Status PackScales(absl::string_view module, const Matrix& scales, DType dtype,
                        std::string* bytes) {
  for (int64_t i = 0; i < scales.size(); ++i) {
    const float scale = scales.data()[i];
    const bool bf16 = dtype == DType::kBF16;
    const uint16_t stored = bf16 ? FloatToBF16(scale) : FloatToF16(scale);
    const float back = bf16 ? BF16ToFloat(stored) : F16ToFloat(stored);
    if (!(back == scale)) {
      return NotPackable(module,
                         absl::StrCat("the scale ", scale, " is not exact in ", NameOf(dtype)));
    }
    std::memcpy(bytes->data() + 2 * i, &stored, 2);
  }
  return absl::OkStatus();
}

// Stored as streams along out_features, one a group: [ceil(out * bits / 32), groups].
absl::Status PackZeros(absl::string_view module, const Matrix& zeros, int bits,
                       std::string* bytes) {
  const int64_t rows = zeros.rows();
  const int64_t groups = zeros.cols();
  const int64_t words = PackedWords(rows, bits);
  std::vector<uint8_t> column(static_cast<size_t>(rows));
  std::vector<uint8_t> packed(static_cast<size_t>(4 * words));
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t r = 0; r < rows; ++r) {
      const float zero = zeros.Row(r)[g];
      if (!(zero >= 0 && zero < static_cast<float>(1 << bits))) {
        return NotPackable(module, absl::StrCat("the zero point ", zero, " is out of range"));
      }
      column[static_cast<size_t>(r)] = static_cast<uint8_t>(zero);
      if (static_cast<float>(column[static_cast<size_t>(r)]) != zero) {
        return NotPackable(module, absl::StrCat("the zero point ", zero, " is not an integer"));
      }
    }
    PackBits(column.data(), rows, bits, packed.data());
    for (int64_t w = 0; w < words; ++w) {
      std::memcpy(bytes->data() + 4 * (w * groups + g), packed.data() + 4 * w, 4);
    }
  }
  return absl::OkStatus();
}

// The column of zero points of group g, one a row.
void UnpackZeroColumn(const StoredLinear& stored, int64_t g, std::vector<uint8_t>* column) {
  const int64_t groups = stored.grid.NumGroups(stored.in_features);
  const int64_t words = PackedWords(stored.out_features, stored.grid.bits);
  std::vector<uint8_t> packed(static_cast<size_t>(4 * words));
  for (int64_t w = 0; w < words; ++w) {
    std::memcpy(packed.data() + 4 * w, stored.zero_point.bytes.data() + 4 * (w * groups + g), 4);
  }
  column->resize(static_cast<size_t>(stored.out_features));
  UnpackBits(packed.data(), stored.out_features, stored.grid.bits, column->data());
}

Matrix UnpackZeros(const StoredLinear& stored) {
  if (stored.grid.symmetric) return Matrix();
  Matrix zeros(stored.out_features, stored.grid.NumGroups(stored.in_features));
  std::vector<uint8_t> column;
  for (int64_t g = 0; g < zeros.cols(); ++g) {
    UnpackZeroColumn(stored, g, &column);
    for (int64_t r = 0; r < zeros.rows(); ++r) zeros.Row(r)[g] = column[static_cast<size_t>(r)];
  }
  return zeros;
}

absl::StatusOr<Matrix> UnpackScales(absl::string_view module, const StoredLinear& stored) {
  Matrix scales(stored.out_features, stored.grid.NumGroups(stored.in_features));
  LWQ_RETURN_IF_ERROR(WidenToFloat(absl::StrCat(module, ".weight_scale"), stored.scale,
                                   /*refuse_non_finite=*/true, scales.view()));
  return scales;
}

// in_features as weight_shape says, checked against the packed tensor's own shape.
absl::Status ReadShape(absl::string_view module, const TensorView& shape, StoredLinear* stored) {
  if (shape.dtype != DType::kI64 || shape.num_elements() != 2) {
    return PackedShape(module, ".weight_shape", shape, "I64 [2]");
  }
  int64_t values[2];
  std::memcpy(values, shape.bytes.data(), sizeof(values));
  const std::vector<int64_t>& packed = stored->packed.shape;
  // 32 codes of b bits are b words: the words of a row decide the width.
  const bool plausible = packed.size() == 2 && values[0] == packed[0] && values[0] > 0 &&
                         values[1] > 0 && packed[1] > 0 && values[1] / 32 <= packed[1] &&
                         values[1] % 32 == 0 && packed[1] % (values[1] / 32) == 0 &&
                         packed[1] / (values[1] / 32) <= 8;
  if (stored->packed.dtype != DType::kI32 || !plausible) {
    return PackedShape(
        module, ".weight_packed", stored->packed,
        absl::StrCat("I32 [", values[0], ", bits * ", values[1],
                     " / 32] for a width of 1 to 8 bits (rows of a multiple of 32)"));
  }
  stored->out_features = values[0];
  stored->in_features = values[1];
  stored->grid.bits = static_cast<int>(packed[1] / (values[1] / 32));
  return absl::OkStatus();
}

absl::Status ReadGroups(absl::string_view module, StoredLinear* stored) {
  const std::vector<int64_t>& shape = stored->scale.shape;
  if (shape.size() != 2 || shape[0] != stored->out_features || shape[1] <= 0 ||
      stored->in_features % shape[1] != 0 || !IsWeightFloat(stored->scale.dtype)) {
    return PackedShape(module, ".weight_scale", stored->scale,
                       absl::StrCat("F16, BF16 or F32 [", stored->out_features,
                                    ", groups] with groups dividing ", stored->in_features));
  }
  stored->grid.group_size = shape[1] == 1 ? 0 : stored->in_features / shape[1];
  if (stored->grid.symmetric) return absl::OkStatus();
  const std::vector<int64_t> expected = {PackedWords(stored->out_features, stored->grid.bits),
                                         shape[1]};
  if (stored->zero_point.dtype != DType::kI32 || stored->zero_point.shape != expected) {
    return PackedShape(module, ".weight_zero_point", stored->zero_point,
                       absl::StrCat("I32 [", absl::StrJoin(expected, ", "), "]"));
  }
  return absl::OkStatus();
}

}  // namespace

UnitFormat FormatOf(const GridSpec& grid) { return {grid.bits, grid.group_size, grid.symmetric}; }

absl::StatusOr<PackedLinear> PackLinear(absl::string_view module, const QuantizedLinear& linear,
                                        DType weight_dtype) {
  const int64_t groups = linear.grid.NumGroups(linear.in_features);
  const bool sound =
      linear.grid.bits >= 1 && linear.grid.bits <= 8 &&
      static_cast<int64_t>(linear.codes.size()) == linear.out_features * linear.in_features &&
      linear.scales.rows() == linear.out_features && linear.scales.cols() == groups &&
      groups * linear.grid.GroupSizeFor(linear.in_features) == linear.in_features &&
      (linear.grid.symmetric || linear.zeros.size() == linear.scales.size());
  if (!sound) return NotPackable(module, "codes, scales and zeros do not have matching shapes");
  PackedLinear packed{std::string(module), {}};
  const LinearShape shape{std::string(module), linear.out_features, linear.in_features};
  for (TensorSpec& spec : LinearTensors(shape, FormatOf(linear.grid), weight_dtype)) {
    std::string bytes(static_cast<size_t>(spec.size_bytes()), '\0');
    packed.tensors.push_back({std::move(spec), std::move(bytes)});
  }
  LWQ_RETURN_IF_ERROR(PackCodes(module, linear, &packed.tensors[0].bytes));
  LWQ_RETURN_IF_ERROR(
      PackScales(module, linear.scales, packed.tensors[1].spec.dtype, &packed.tensors[1].bytes));
  const int64_t dimensions[2] = {linear.out_features, linear.in_features};
  std::memcpy(packed.tensors[2].bytes.data(), dimensions, sizeof(dimensions));
  if (!linear.grid.symmetric) {
    LWQ_RETURN_IF_ERROR(
        PackZeros(module, linear.zeros, linear.grid.bits, &packed.tensors[3].bytes));
  }
  return packed;
}

absl::StatusOr<StoredLinear> FindStoredLinear(absl::string_view module, TensorLookup lookup) {
  const auto name = [&](absl::string_view suffix) { return absl::StrCat(module, suffix); };
  StoredLinear stored;
  LWQ_ASSIGN_OR_RETURN(stored.packed, lookup(name(".weight_packed")));
  LWQ_ASSIGN_OR_RETURN(stored.scale, lookup(name(".weight_scale")));
  LWQ_ASSIGN_OR_RETURN(TensorView shape, lookup(name(".weight_shape")));
  if (lookup(name(".weight_g_idx")).ok()) {
    return Failure(absl::StatusCode::kUnimplemented, "QUANT_FORMAT_UNSUPPORTED",
                   absl::StrCat(module,
                                " is stored in activation order (weight_g_idx), which lwq "
                                "does not read"));
  }
  absl::StatusOr<TensorView> zero_point = lookup(name(".weight_zero_point"));
  stored.grid.symmetric = !zero_point.ok();
  if (zero_point.ok()) stored.zero_point = *std::move(zero_point);
  LWQ_RETURN_IF_ERROR(ReadShape(module, shape, &stored));
  LWQ_RETURN_IF_ERROR(ReadGroups(module, &stored));
  return stored;
}

absl::StatusOr<QuantizedLinear> UnpackLinear(absl::string_view module, const StoredLinear& stored) {
  QuantizedLinear linear;
  linear.out_features = stored.out_features;
  linear.in_features = stored.in_features;
  linear.grid = stored.grid;
  LWQ_ASSIGN_OR_RETURN(linear.scales, UnpackScales(module, stored));
  linear.zeros = UnpackZeros(stored);
  linear.codes.resize(static_cast<size_t>(stored.out_features * stored.in_features));
  const int64_t row_bytes = 4 * stored.packed.shape[1];
  for (int64_t r = 0; r < stored.out_features; ++r) {
    UnpackBits(stored.packed.bytes.data() + r * row_bytes, stored.in_features, stored.grid.bits,
               linear.codes.data() + r * stored.in_features);
  }
  return linear;
}

absl::Status DequantizeStored(absl::string_view module, const StoredLinear& stored,
                              MatrixView out) {
  if (out.rows != stored.out_features || out.cols != stored.in_features) {
    return InvalidFailure(
        "CONFIG_MISMATCH",
        absl::StrCat(module, " is stored as [", stored.out_features, ", ", stored.in_features,
                     "], [", out.rows, ", ", out.cols, "] is needed"));
  }
  LWQ_ASSIGN_OR_RETURN(const Matrix scales, UnpackScales(module, stored));
  const Matrix zeros = UnpackZeros(stored);
  const int64_t groups = scales.cols();
  const int64_t group_size = stored.in_features / groups;
  const int32_t middle = 1 << (stored.grid.bits - 1);
  std::vector<uint8_t> codes(static_cast<size_t>(stored.in_features));
  const int64_t row_bytes = 4 * stored.packed.shape[1];
  for (int64_t r = 0; r < out.rows; ++r) {
    UnpackBits(stored.packed.bytes.data() + r * row_bytes, stored.in_features, stored.grid.bits,
               codes.data());
    for (int64_t g = 0; g < groups; ++g) {
      const float scale = scales.Row(r)[g];
      const int32_t zero = stored.grid.symmetric ? middle : static_cast<int32_t>(zeros.Row(r)[g]);
      const uint8_t* in = codes.data() + g * group_size;
      float* values = out.Row(r) + g * group_size;
      for (int64_t k = 0; k < group_size; ++k) {
        values[k] = scale * static_cast<float>(static_cast<int32_t>(in[k]) - zero);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace lwq
