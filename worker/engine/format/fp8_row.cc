#include "worker/engine/format/fp8_row.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/tensor/fp8.h"
#include "worker/engine/tensor/half.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

// What engines' 8-bit products take.
constexpr int64_t kFeatureMultiple = 16;
// Of scales, as on grids: what F16 holds with all its bits.
constexpr float kLeastScale = 0x1p-14f;

// Exact in F16 and BF16: eight significant bits.
float ScaleFor(float largest) {
  const float scale = std::max(largest / kE4M3Largest, kLeastScale);
  return BF16ToFloat(FloatToBF16(scale));
}

const WeightFormat* FindById(absl::string_view id) {
  return id == Fp8RowFormat::Find()->id() ? Fp8RowFormat::Find() : nullptr;
}

}  // namespace

Fp8RowFormat::Fp8RowFormat()
    : WeightFormat("fp8-row-a8", "8-bit floats by row, inputs too", /*dense=*/false) {}

const Fp8RowFormat* Fp8RowFormat::Find() {
  static const auto* const format = new Fp8RowFormat();
  return format;
}

EncodedLinear Fp8RowFormat::Encode(ConstMatrixView weight, DType source) const {
  EncodedLinear encoded;
  for (PartSpec& spec : Parts(weight.rows, weight.cols, source)) {
    std::string bytes(static_cast<size_t>(spec.size_bytes()), '\0');
    encoded.push_back({std::move(spec), std::move(bytes)});
  }
  const bool bf16 = encoded[1].spec.dtype == DType::kBF16;
  for (int64_t r = 0; r < weight.rows; ++r) {
    const float* row = weight.Row(r);
    float largest = 0;
    for (int64_t c = 0; c < weight.cols; ++c) largest = std::max(largest, std::abs(row[c]));
    const float scale = ScaleFor(largest);
    const uint16_t stored = bf16 ? FloatToBF16(scale) : FloatToF16(scale);
    std::memcpy(encoded[1].bytes.data() + 2 * r, &stored, 2);
    char* codes = encoded[0].bytes.data() + r * weight.cols;
    for (int64_t c = 0; c < weight.cols; ++c) {
      codes[c] = static_cast<char>(FloatToE4M3(row[c] / scale));
    }
  }
  return encoded;
}

absl::Status Fp8RowFormat::Accepts(int64_t out_features, int64_t in_features) const {
  if (in_features % kFeatureMultiple == 0 && out_features % kFeatureMultiple == 0) {
    return absl::OkStatus();
  }
  return Failure(reasons::kFormatShape,
                 absl::StrCat("its shape [", out_features, ", ", in_features,
                              "] is not in multiples of ", kFeatureMultiple));
}

std::vector<PartSpec> Fp8RowFormat::Parts(int64_t out_features, int64_t in_features,
                                          DType source) const {
  return {{"codes", DType::kF8E4M3, {out_features, in_features}},
          {"scales", GridFormat::ScaleDType(source), {out_features, 1}}};
}

absl::Status Fp8RowFormat::Dequantize(absl::string_view module, absl::Span<const TensorView> parts,
                                      int64_t first_row, MatrixView out) const {
  Matrix scales(parts[1].shape[0], 1);
  LWQ_RETURN_IF_ERROR(WidenToFloat(absl::StrCat("of the scales of ", module), parts[1],
                                   /*refuse_non_finite=*/true, scales.view()));
  for (int64_t r = 0; r < out.rows; ++r) {
    const uint8_t* codes = parts[0].bytes.data() + (first_row + r) * out.cols;
    const float scale = scales.Row(first_row + r)[0];
    float* row = out.Row(r);
    for (int64_t c = 0; c < out.cols; ++c) {
      row[c] = scale * E4M3ToFloat(codes[c]);
      if (std::isfinite(row[c])) continue;
      return Failure(reasons::kNonFiniteWeights,
                     absl::StrCat(module, " [", first_row + r, ", ", c,
                                  "] is F8_E4M3's code for NaN, or beyond F32's range "
                                  "once times its scale"));
    }
  }
  return absl::OkStatus();
}

constinit const WeightFormatDef WeightFormatDefs::fp8_row = {
    .name = "fp8_row",
    .help = "fp8-row-a8 (8-bit floats by row, inputs in 8-bit floats too)",
    .find = &FindById,
};

}  // namespace lwq
