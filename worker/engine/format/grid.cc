// The int<bits>-g<group> formats: packing, unpacking and dequantizing.
#include "worker/engine/format/grid.h"

#include <cstring>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/mutex.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/tensor/half.h"
#include "worker/engine/tensor/pack_bits.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

// Engines' kernels and the bit streams of both dimensions want whole words at every width.
constexpr int64_t kFeatureMultiple = 32;
constexpr int64_t kMaxGroupSize = 1 << 20;

std::string IdOf(int bits, int64_t group_size, bool symmetric,
                 ActivationRule rule = ActivationRule::kNone) {
  return absl::StrCat("int", bits, group_size == 0 ? "-row" : absl::StrCat("-g", group_size),
                      symmetric ? "" : "-asym", rule == ActivationRule::kNone ? "" : "-a8");
}

std::string LabelOf(int bits, int64_t group_size, bool symmetric, ActivationRule rule) {
  return absl::StrCat(
      bits, "-bit", group_size == 0 ? " by row" : absl::StrCat(" in groups of ", group_size),
      symmetric ? "" : " with zero points", rule == ActivationRule::kNone ? "" : ", inputs too");
}

absl::Status NotPackable(absl::string_view module, absl::string_view what) {
  return Failure(reasons::kNotPackable, absl::StrCat("packing ", module, ": ", what));
}

uint8_t* Bytes(std::string& bytes) { return reinterpret_cast<uint8_t*>(bytes.data()); }

absl::Status PackCodes(absl::string_view module, const GridCodes& linear, int bits,
                       std::string* bytes) {
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

// All zero points, [out, groups].
Matrix UnpackZeros(const TensorView& stored, int bits, int64_t out_features) {
  const int64_t groups = stored.shape[1];
  const int64_t words = PackedWords(out_features, bits);
  Matrix zeros(out_features, groups);
  std::vector<uint8_t> packed(static_cast<size_t>(4 * words));
  std::vector<uint8_t> column(static_cast<size_t>(out_features));
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t w = 0; w < words; ++w) {
      std::memcpy(packed.data() + 4 * w, stored.bytes.data() + 4 * (w * groups + g), 4);
    }
    UnpackBits(packed.data(), out_features, bits, column.data());
    for (int64_t r = 0; r < out_features; ++r) zeros.Row(r)[g] = column[static_cast<size_t>(r)];
  }
  return zeros;
}

absl::StatusOr<Matrix> UnpackScales(absl::string_view module, const TensorView& stored) {
  Matrix scales(stored.shape[0], stored.shape[1]);
  LWQ_RETURN_IF_ERROR(WidenToFloat(absl::StrCat("of the scales of ", module), stored,
                                   /*refuse_non_finite=*/true, scales.view()));
  return scales;
}

// "int4-g128-asym" -> its format.
const WeightFormat* FindGrid(absl::string_view id) {
  if (id == GridFormat::WithRoundedInputs()->id()) return GridFormat::WithRoundedInputs();
  absl::string_view rest = id;
  if (!absl::ConsumePrefix(&rest, "int")) return nullptr;
  const bool symmetric = !absl::ConsumeSuffix(&rest, "-asym");
  const size_t dash = rest.find('-');
  int bits = 0;
  if (dash == absl::string_view::npos || !absl::SimpleAtoi(rest.substr(0, dash), &bits) ||
      bits < 1 || bits > GridFormat::kMaxBits) {
    return nullptr;
  }
  rest.remove_prefix(dash + 1);
  int64_t group_size = 0;
  if (rest != "row" && (!absl::ConsumePrefix(&rest, "g") || !absl::SimpleAtoi(rest, &group_size) ||
                        group_size < 1 || group_size > kMaxGroupSize)) {
    return nullptr;
  }
  // Only the one spelling: "int04-g0128" is no id.
  return IdOf(bits, group_size, symmetric) == id ? GridFormat::Find(bits, group_size, symmetric)
                                                 : nullptr;
}

}  // namespace

GridFormat::GridFormat(int bits, int64_t group_size, bool symmetric, ActivationRule rule)
    : WeightFormat(IdOf(bits, group_size, symmetric, rule),
                   LabelOf(bits, group_size, symmetric, rule),
                   /*dense=*/false),
      bits_(bits),
      group_size_(group_size),
      symmetric_(symmetric),
      rule_(rule) {}

const GridFormat* GridFormat::WithRoundedInputs() {
  static const auto* const format =
      new GridFormat(8, 0, /*symmetric=*/true, ActivationRule::kInt8PerToken);
  return format;
}

const GridFormat* GridFormat::Find(int bits, int64_t group_size, bool symmetric) {
  static Mutex mutex;
  static auto& formats = *new std::map<std::tuple<int, int64_t, bool>, const GridFormat*>;
  MutexLock lock(&mutex);
  const GridFormat*& format = formats[{bits, group_size, symmetric}];
  if (format == nullptr) {
    format = new GridFormat(bits, group_size, symmetric, ActivationRule::kNone);
  }
  return format;
}

DType GridFormat::ScaleDType(DType source) {
  return source == DType::kBF16 ? DType::kBF16 : DType::kF16;
}

absl::Status GridFormat::Accepts(int64_t out_features, int64_t in_features) const {
  if (group_size_ > 0 && in_features % group_size_ != 0) {
    return Failure(
        reasons::kFormatShape,
        absl::StrCat("group size ", group_size_, " does not divide its in_features ", in_features));
  }
  if (in_features % kFeatureMultiple != 0 || out_features % kFeatureMultiple != 0) {
    return Failure(
        reasons::kFormatShape,
        absl::StrCat("its shape [", out_features, ", ", in_features, "] is not in multiples of ",
                     kFeatureMultiple, ", so it can only be kept dense"));
  }
  return absl::OkStatus();
}

std::vector<PartSpec> GridFormat::Parts(int64_t out_features, int64_t in_features,
                                        DType source) const {
  const int64_t groups = NumGroups(in_features);
  std::vector<PartSpec> parts = {
      {"codes", DType::kI32, {out_features, PackedWords(in_features, bits_)}},
      {"scales", ScaleDType(source), {out_features, groups}}};
  if (!symmetric_) {
    parts.push_back({"zeros", DType::kI32, {PackedWords(out_features, bits_), groups}});
  }
  return parts;
}

absl::StatusOr<EncodedLinear> GridFormat::Encode(absl::string_view module, const GridCodes& linear,
                                                 DType source) const {
  const int64_t groups = NumGroups(linear.in_features);
  const bool sound =
      Accepts(linear.out_features, linear.in_features).ok() &&
      static_cast<int64_t>(linear.codes.size()) == linear.out_features * linear.in_features &&
      linear.scales.rows() == linear.out_features && linear.scales.cols() == groups &&
      (symmetric_ || linear.zeros.size() == linear.scales.size());
  if (!sound) return NotPackable(module, "codes, scales and zeros do not have matching shapes");
  EncodedLinear encoded;
  for (PartSpec& spec : Parts(linear.out_features, linear.in_features, source)) {
    std::string bytes(static_cast<size_t>(spec.size_bytes()), '\0');
    encoded.push_back({std::move(spec), std::move(bytes)});
  }
  LWQ_RETURN_IF_ERROR(PackCodes(module, linear, bits_, &encoded[0].bytes));
  LWQ_RETURN_IF_ERROR(PackScales(module, linear.scales, encoded[1].spec.dtype, &encoded[1].bytes));
  if (!symmetric_) {
    LWQ_RETURN_IF_ERROR(PackZeros(module, linear.zeros, bits_, &encoded[2].bytes));
  }
  return encoded;
}

absl::StatusOr<GridCodes> GridFormat::Decode(absl::string_view module,
                                             const StoredLinear& stored) const {
  LWQ_RETURN_IF_ERROR(CheckParts(module, stored));
  GridCodes linear;
  linear.out_features = stored.out_features;
  linear.in_features = stored.in_features;
  LWQ_ASSIGN_OR_RETURN(linear.scales, UnpackScales(module, stored.parts[1]));
  linear.zeros = Zeros(stored);
  linear.codes.resize(static_cast<size_t>(stored.out_features * stored.in_features));
  const int64_t row_bytes = 4 * PackedWords(stored.in_features, bits_);
  for (int64_t r = 0; r < stored.out_features; ++r) {
    UnpackBits(stored.parts[0].bytes.data() + r * row_bytes, stored.in_features, bits_,
               linear.codes.data() + r * stored.in_features);
  }
  return linear;
}

Matrix GridFormat::Zeros(const StoredLinear& stored) const {
  return symmetric_ ? Matrix() : UnpackZeros(stored.parts[2], bits_, stored.out_features);
}

absl::Status GridFormat::Dequantize(absl::string_view module, absl::Span<const TensorView> parts,
                                    int64_t first_row, MatrixView out) const {
  TensorView scale_rows = parts[1];
  const int64_t out_features = scale_rows.shape[0], groups = scale_rows.shape[1];
  const int64_t scale_row_bytes = groups * SizeOf(scale_rows.dtype);
  scale_rows.shape[0] = out.rows;
  scale_rows.bytes = scale_rows.bytes.subspan(static_cast<size_t>(first_row * scale_row_bytes),
                                              static_cast<size_t>(out.rows * scale_row_bytes));
  LWQ_ASSIGN_OR_RETURN(const Matrix scales, UnpackScales(module, scale_rows));
  const Matrix zeros = symmetric_ ? Matrix() : UnpackZeros(parts[2], bits_, out_features);
  const int64_t group_size = out.cols / groups;
  const int32_t middle = 1 << (bits_ - 1);
  std::vector<uint8_t> codes(static_cast<size_t>(out.cols));
  const int64_t row_bytes = 4 * parts[0].shape[1];
  for (int64_t r = 0; r < out.rows; ++r) {
    UnpackBits(parts[0].bytes.data() + (first_row + r) * row_bytes, out.cols, bits_, codes.data());
    for (int64_t g = 0; g < groups; ++g) {
      const float scale = scales.Row(r)[g];
      const int32_t zero = symmetric_ ? middle : static_cast<int32_t>(zeros.Row(first_row + r)[g]);
      const uint8_t* in = codes.data() + g * group_size;
      float* values = out.Row(r) + g * group_size;
      for (int64_t k = 0; k < group_size; ++k) {
        values[k] = scale * static_cast<float>(static_cast<int32_t>(in[k]) - zero);
      }
    }
  }
  return absl::OkStatus();
}

constinit const WeightFormatDef WeightFormatDefs::grid = {
    .name = "grid",
    .help =
        "int<1 to 8>-g<group size> or int<1 to 8>-row, -asym behind it for zero points "
        "(int4-g128, int3-row, int8-g32-asym); int8-row-a8, which rounds inputs too",
    .find = &FindGrid,
};

}  // namespace lwq
