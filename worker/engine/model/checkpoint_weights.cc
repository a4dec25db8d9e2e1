// A dense checkpoint, of floats of 16 or 32 bits or of what is read as such, as a WeightSource.
#include "worker/engine/model/checkpoint_weights.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/io/stored_rows.h"
#include "worker/engine/model/layer_edits.h"
#include "worker/engine/model/upload_tensor.h"
#include "worker/engine/model/weight_source.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

class CheckpointWeights : public WeightSource {
 public:
  CheckpointWeights(const Checkpoint* checkpoint, bool as_kept)
      : checkpoint_(checkpoint), as_kept_(as_kept) {}

  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    const std::string name = absl::StrCat(module, ".weight");
    LWQ_ASSIGN_OR_RETURN(TensorView tensor, checkpoint_->Get(name));
    if (IsCoded(tensor)) return ReadCoded(name, out);
    return WidenToFloat(name, tensor, /*refuse_non_finite=*/true, out);
  }

  absl::Status ReadDense(absl::string_view tensor, int64_t first_row,
                         MatrixView out) const override {
    if (HoldsCoded(tensor)) return ReadRows(tensor, first_row, out);
    LWQ_ASSIGN_OR_RETURN(const TensorView rows, RowsOf(tensor, first_row, out.rows));
    return WidenToFloat(tensor, rows, /*refuse_non_finite=*/true, out);
  }
  absl::Status LoadLinear(absl::string_view module, Device* device,
                          DeviceView<float> out) const override {
    const std::string name = absl::StrCat(module, ".weight");
    LWQ_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint_->Get(name));
    if (IsCoded(tensor)) return WeightSource::LoadLinear(module, device, out);
    return UploadTensor(device, name, tensor, out);
  }
  absl::Status LoadDense(absl::string_view tensor, int64_t first_row, Device* device,
                         DeviceView<float> out) const override {
    if (HoldsCoded(tensor)) return WeightSource::LoadDense(tensor, first_row, device, out);
    LWQ_ASSIGN_OR_RETURN(const TensorView rows, RowsOf(tensor, first_row, out.rows));
    return UploadTensor(device, tensor, rows, out);
  }

  bool HasDense(absl::string_view tensor) const override { return checkpoint_->Has(tensor); }

 private:
  bool HoldsCoded(absl::string_view tensor) const {
    const auto found = checkpoint_->Get(tensor);
    return found.ok() && IsCoded(*found);
  }
  // A whole weight.
  absl::Status ReadCoded(const std::string& name, MatrixView out) const {
    LWQ_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint_->Get(name));
    if (tensor.shape != std::vector<int64_t>{out.rows, out.cols}) {
      return Failure(reasons::kConfigMismatch,
                     absl::StrCat("tensor ", name, " does not have the shape [", out.rows, ", ",
                                  out.cols, "]"));
    }
    return ReadRows(name, 0, out);
  }
  // Of a tensor that is coded.
  absl::Status ReadRows(absl::string_view name, int64_t first_row, MatrixView out) const {
    LWQ_RETURN_IF_ERROR(ReadCodedRows(*checkpoint_, name, first_row, out));
    if (!as_kept_) return absl::OkStatus();
    LWQ_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint_->Get(name));
    return RoundTo(KeptAs(*checkpoint_, tensor), name, out);
  }

  // Rows [first_row, first_row + count) of a tensor; [n] counts as one row.
  absl::StatusOr<TensorView> RowsOf(absl::string_view tensor, int64_t first_row,
                                    int64_t count) const {
    LWQ_ASSIGN_OR_RETURN(TensorView whole, checkpoint_->Get(tensor));
    const bool vector = whole.shape.size() == 1;
    const int64_t rows = vector ? 1 : whole.shape.empty() ? 0 : whole.shape[0];
    if (first_row < 0 || count < 0 || count > rows || first_row > rows - count) {
      return Failure(reasons::kConfigMismatch,
                     absl::StrCat("tensor ", tensor, " has ", rows, " rows, rows ", first_row,
                                  " to ", first_row + count, " are needed"));
    }
    if (rows == 0 || vector) return whole;
    const size_t row_bytes = whole.bytes.size() / static_cast<size_t>(rows);
    TensorView part = whole;
    part.shape[0] = count;
    part.bytes = whole.bytes.subspan(static_cast<size_t>(first_row) * row_bytes,
                                     static_cast<size_t>(count) * row_bytes);
    return part;
  }

  const Checkpoint* const checkpoint_;
  const bool as_kept_;
};

}  // namespace

std::unique_ptr<WeightSource> MakeCheckpointWeights(const Checkpoint* checkpoint) {
  return std::make_unique<CheckpointWeights>(checkpoint, /*as_kept=*/false);
}

std::unique_ptr<WeightSource> MakeKeptWeights(const Checkpoint* checkpoint) {
  return std::make_unique<CheckpointWeights>(checkpoint, /*as_kept=*/true);
}

}  // namespace lwq
