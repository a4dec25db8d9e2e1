#include "worker/engine/model/layer_edits.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

float Rounded(DType dtype, float value) {
  switch (dtype) {
    case DType::kBF16:
      return BF16ToFloat(FloatToBF16(value));
    case DType::kF16:
      return F16ToFloat(FloatToF16(value));
    default:
      return value;
  }
}

class EditedWeights : public WeightSource {
 public:
  EditedWeights(const WeightSource* base, const LayerEdits* edits, DType dtype)
      : base_(base), edits_(*edits), dtype_(dtype) {}

  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    LWQ_RETURN_IF_ERROR(base_->ReadLinear(module, out));
    const auto found = edits_.linears.find(std::string(module));
    if (found == edits_.linears.end()) return absl::OkStatus();
    LWQ_RETURN_IF_ERROR(ScaleRows(found->second, 0, out));
    return RoundTo(dtype_, module, out);
  }
  absl::Status ReadDense(absl::string_view tensor, int64_t first_row,
                         MatrixView out) const override {
    if (const LinearScales* scales = ScalesOf(tensor); scales != nullptr) {
      LWQ_RETURN_IF_ERROR(base_->ReadDense(tensor, first_row, out));
      LWQ_RETURN_IF_ERROR(ScaleRows(*scales, first_row, out));
      return RoundTo(dtype_, tensor, out);
    }
    const auto found = edits_.tensors.find(std::string(tensor));
    if (found == edits_.tensors.end()) return base_->ReadDense(tensor, first_row, out);
    // Norms and biases are vectors: one row.
    if (first_row != 0 || out.rows != 1 || out.cols != static_cast<int64_t>(found->second.size())) {
      return absl::InternalError(
          absl::StrCat("edited tensor ", tensor, " has ", found->second.size(), " values, [",
                       out.rows, ", ", out.cols, "] from row ", first_row, " are asked for"));
    }
    std::copy(found->second.begin(), found->second.end(), out.Row(0));
    return absl::OkStatus();
  }
  ActivationRule RuleOf(absl::string_view module) const override { return base_->RuleOf(module); }
  bool HasDense(absl::string_view tensor) const override { return base_->HasDense(tensor); }
  absl::Status LoadLinear(absl::string_view module, Device* device,
                          DeviceView<float> out) const override {
    if (edits_.linears.count(std::string(module)) == 0) {
      return base_->LoadLinear(module, device, out);
    }
    return WeightSource::LoadLinear(module, device, out);
  }
  absl::Status LoadDense(absl::string_view tensor, int64_t first_row, Device* device,
                         DeviceView<float> out) const override {
    if (edits_.tensors.count(std::string(tensor)) == 0 && ScalesOf(tensor) == nullptr) {
      return base_->LoadDense(tensor, first_row, device, out);
    }
    return WeightSource::LoadDense(tensor, first_row, device, out);
  }

 private:
  // Of the linear whose weight a tensor's name stands for, null where it has none.
  const LinearScales* ScalesOf(absl::string_view tensor) const {
    if (!absl::ConsumeSuffix(&tensor, ".weight")) return nullptr;
    const auto found = edits_.linears.find(std::string(tensor));
    return found == edits_.linears.end() ? nullptr : &found->second;
  }

  const WeightSource* const base_;
  const LayerEdits& edits_;
  const DType dtype_;
};

}  // namespace

absl::Status ScaleRows(const LinearScales& scales, int64_t first_row, MatrixView weight) {
  const auto fits = [](const std::vector<float>& list, int64_t first, int64_t count) {
    return list.empty() || (first >= 0 && first + count <= static_cast<int64_t>(list.size()));
  };
  if (!fits(scales.rows, first_row, weight.rows) ||
      (!scales.columns.empty() && static_cast<int64_t>(scales.columns.size()) != weight.cols)) {
    return absl::InternalError(absl::StrCat("scales of [", scales.rows.size(), ", ",
                                            scales.columns.size(), "] for rows ", first_row, " to ",
                                            first_row + weight.rows, " of ", weight.cols));
  }
  for (int64_t r = 0; r < weight.rows; ++r) {
    float* row = weight.Row(r);
    const float scale =
        scales.rows.empty() ? 1.0f : scales.rows[static_cast<size_t>(first_row + r)];
    for (int64_t c = 0; c < weight.cols; ++c) row[c] *= scale;
    if (scales.columns.empty()) continue;
    for (int64_t c = 0; c < weight.cols; ++c) row[c] *= scales.columns[static_cast<size_t>(c)];
  }
  return absl::OkStatus();
}

absl::Status RoundTo(DType dtype, absl::string_view what, MatrixView values) {
  for (int64_t r = 0; r < values.rows; ++r) {
    float* row = values.Row(r);
    for (int64_t c = 0; c < values.cols; ++c) {
      const float rounded = Rounded(dtype, row[c]);
      if (!std::isfinite(rounded)) {
        return Failure(reasons::kNonFiniteWeights,
                       absl::StrCat(what, ": row ", r, ", column ", c, " is ", row[c], ", which ",
                                    NameOf(dtype), " does not hold"));
      }
      row[c] = rounded;
    }
  }
  return absl::OkStatus();
}

std::unique_ptr<WeightSource> MakeEditedWeights(const WeightSource* base, const LayerEdits* edits,
                                                DType dtype) {
  return std::make_unique<EditedWeights>(base, edits, dtype);
}

}  // namespace lwq
