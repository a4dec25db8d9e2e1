// The source's own weights: what a linear is when nothing is done to it.
#include "absl/strings/str_cat.h"
#include "worker/engine/format/weight_format.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

class DenseWeights final : public WeightFormat {
 public:
  DenseWeights() : WeightFormat("dense", "as in the source", /*dense=*/true) {}

  absl::Status Accepts(int64_t, int64_t) const override { return absl::OkStatus(); }
  std::vector<PartSpec> Parts(int64_t out_features, int64_t in_features,
                              DType source) const override {
    return {{"weight", source, {out_features, in_features}}};
  }
  absl::Status Dequantize(absl::string_view module, absl::Span<const TensorView> parts,
                          int64_t first_row, MatrixView out) const override {
    TensorView rows = parts[0];
    const int64_t row_bytes = rows.shape[1] * SizeOf(rows.dtype);
    rows.shape[0] = out.rows;
    rows.bytes = rows.bytes.subspan(static_cast<size_t>(first_row * row_bytes),
                                    static_cast<size_t>(out.rows * row_bytes));
    return WidenToFloat(absl::StrCat(module, ".weight"), rows, /*refuse_non_finite=*/true, out);
  }
};

const WeightFormat* FindDense(absl::string_view id) {
  return id == "dense" ? DenseFormat() : nullptr;
}

}  // namespace

const WeightFormat* DenseFormat() {
  static const auto* const format = new DenseWeights();
  return format;
}

constinit const WeightFormatDef WeightFormatDefs::dense = {
    .name = "dense",
    .help = "dense (the source's own weights)",
    .find = &FindDense,
};

}  // namespace lwq
