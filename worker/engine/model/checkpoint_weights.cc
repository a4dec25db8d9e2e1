// A dense checkpoint as a WeightSource.
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/model/weight_source.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

class CheckpointWeights : public WeightSource {
 public:
  explicit CheckpointWeights(const Checkpoint* checkpoint) : checkpoint_(checkpoint) {}

  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    const std::string name = absl::StrCat(module, ".weight");
    LWQ_ASSIGN_OR_RETURN(TensorView tensor, checkpoint_->Get(name));
    return WidenToFloat(name, tensor, /*refuse_non_finite=*/true, out);
  }

  absl::Status ReadDense(absl::string_view tensor, int64_t first_row,
                         MatrixView out) const override {
    LWQ_ASSIGN_OR_RETURN(TensorView whole, checkpoint_->Get(tensor));
    const bool vector = whole.shape.size() == 1;
    const int64_t rows = vector ? 1 : whole.shape.empty() ? 0 : whole.shape[0];
    if (first_row < 0 || out.rows < 0 || out.rows > rows || first_row > rows - out.rows) {
      return InvalidFailure("CONFIG_MISMATCH",
                            absl::StrCat("tensor ", tensor, " has ", rows, " rows, rows ",
                                         first_row, " to ", first_row + out.rows, " are needed"));
    }
    if (rows == 0 || vector) return WidenToFloat(tensor, whole, /*refuse_non_finite=*/true, out);
    const size_t row_bytes = whole.bytes.size() / static_cast<size_t>(rows);
    TensorView part = whole;
    part.shape[0] = out.rows;
    part.bytes = whole.bytes.subspan(static_cast<size_t>(first_row) * row_bytes,
                                     static_cast<size_t>(out.rows) * row_bytes);
    return WidenToFloat(tensor, part, /*refuse_non_finite=*/true, out);
  }

  bool HasDense(absl::string_view tensor) const override { return checkpoint_->Has(tensor); }

 private:
  const Checkpoint* const checkpoint_;
};

}  // namespace

std::unique_ptr<WeightSource> MakeCheckpointWeights(const Checkpoint* checkpoint) {
  return std::make_unique<CheckpointWeights>(checkpoint);
}

}  // namespace lwq
