// Columns are refined in small blocks inside large ones. The residual (W - Q) H of a large block is
// one product of all errors as they are when its turn comes, in the type that the statistics were
// made for; inside it the changes of each small block reach those after it by a product with H as
// it is. The large products are the cost: one with H a sweep, where GPTQ's own updates are half of
// one.
#include "worker/engine/quant/refinement.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kSmallBlock = 128;
// A sweep gains a little less than half of what the one before it did; from the third on held-out
// text does not see it (docs/decisions/0006).
constexpr int kSweeps = 2;

absl::StatusOr<std::unique_ptr<DeviceMatrix>> OnDevice(Device* device, const Matrix& host) {
  LWQ_ASSIGN_OR_RETURN(auto out, device->NewMatrix(host.rows(), host.cols()));
  LWQ_RETURN_IF_ERROR(device->Upload(host.view(), out->view()));
  return out;
}

class Refinement {
 public:
  Refinement(Device* device, ConstMatrixView weight, const InputStatistics& statistics,
             QuantizedLinear* quantized)
      : device_(device),
        weight_(weight),
        h_(*statistics.hessian()),
        compute_(statistics.compute()),
        quantized_(*quantized),
        grid_(quantized->grid),
        group_size_(grid_.GroupSizeFor(weight.cols)),
        gain_(static_cast<size_t>(weight.rows)) {}

  absl::Status Run() {
    LWQ_ASSIGN_OR_RETURN(scales_, OnDevice(device_, quantized_.scales));
    if (!grid_.symmetric) {
      LWQ_ASSIGN_OR_RETURN(zeros_, OnDevice(device_, quantized_.zeros));
    }
    LWQ_RETURN_IF_ERROR(TakeErrors());
    const int64_t most = std::min(BlockedHessian::kBlock, weight_.cols);
    LWQ_ASSIGN_OR_RETURN(residual_, device_->NewMatrix(weight_.rows, most));
    LWQ_ASSIGN_OR_RETURN(change_, device_->NewMatrix(weight_.rows, most));
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      for (int64_t first = 0; first < weight_.cols; first += most) {
        LWQ_RETURN_IF_ERROR(RefineLargeBlock(first, std::min(most, weight_.cols - first)));
      }
    }
    quantized_.record.calibrated_error -= quantized_.record.refinement_gain;
    return device_->Download(scales_->view(), quantized_.scales.view());
  }

 private:
  // A small block: whole groups, or a part of one.
  struct Columns {
    int64_t first = 0;
    int64_t count = 0;
    bool whole_groups = true;
  };

  ConstMatrixView zeros() const { return zeros_ == nullptr ? ConstMatrixView() : zeros_->view(); }

  // error_ = W - Q
  absl::Status TakeErrors() {
    LWQ_ASSIGN_OR_RETURN(error_, device_->NewMatrix(weight_.rows, weight_.cols));
    LWQ_RETURN_IF_ERROR(device_->Dequantize(quantized_.codes.data(), grid_, scales_->view(),
                                            zeros(), error_->view()));
    LWQ_RETURN_IF_ERROR(device_->Subtract(weight_, error_->view(), error_->view()));
    LWQ_ASSIGN_OR_RETURN(errors_, device_->NewInput(weight_.rows, weight_.cols, compute_));
    return device_->SetColumns(error_->view(), 0, *errors_);
  }

  absl::Status RefineLargeBlock(int64_t first, int64_t count) {
    LWQ_RETURN_IF_ERROR(
        device_->Linear(*errors_, h_.ColumnsFrom(first), residual_->view().Cols(0, count)));
    Columns columns{.first = first};
    while (columns.first < first + count) {
      columns = NextColumns(columns.first, first + count);
      LWQ_RETURN_IF_ERROR(RefineColumns(columns, first));
      columns.first += columns.count;
    }
    const MatrixView error = error_->view().Cols(first, count);
    LWQ_RETURN_IF_ERROR(device_->Subtract(error, change_->view().Cols(0, count), error));
    return device_->SetColumns(error, first, *errors_);
  }

  // The columns to refine together from `first` on, before `end`: groups that fit whole, else as
  // much of one as does.
  Columns NextColumns(int64_t first, int64_t end) const {
    const int64_t most = std::min(kSmallBlock, end - first);
    if (first % group_size_ == 0 && group_size_ <= most) {
      return {first, most / group_size_ * group_size_, true};
    }
    const int64_t group_end = (first / group_size_ + 1) * group_size_;
    return {first, std::min(most, group_end - first), false};
  }

  // `block_first`: where the large block begins, in which all columns before these are done.
  absl::Status RefineColumns(const Columns& columns, int64_t block_first) {
    const auto [first, count, whole_groups] = columns;
    const int64_t at = first - block_first;
    const ConstMatrixView h = h_.diagonal->view().Rows(block_first, at + count).Cols(at, count);
    const MatrixView residual = residual_->view().Cols(at, count);
    LWQ_RETURN_IF_ERROR(
        device_->SubtractProduct(change_->view().Cols(0, at), h.Rows(0, at), residual));
    RefinementBlock block;
    block.residual = residual;
    block.h = h.Rows(at, count);
    block.grid = grid_;
    block.grid.group_size = whole_groups ? group_size_ : count;
    block.refit_scales = grid_.search && whole_groups;
    const int64_t first_group = first / group_size_;
    const int64_t num_groups = count / block.grid.group_size;
    block.scales = scales_->view().Cols(first_group, num_groups);
    if (zeros_ != nullptr) block.zeros = zeros().Cols(first_group, num_groups);
    block.codes = quantized_.codes.data() + first;
    block.code_stride = weight_.cols;
    block.change = change_->view().Cols(at, count);
    LWQ_RETURN_IF_ERROR(device_->RefineBlock(block, absl::MakeSpan(gain_)));
    for (const double g : gain_) quantized_.record.refinement_gain += g;
    return absl::OkStatus();
  }

  Device* const device_;
  const ConstMatrixView weight_;
  const BlockedHessian& h_;
  const ComputeType compute_;
  QuantizedLinear& quantized_;
  const GridSpec grid_;
  const int64_t group_size_;
  std::unique_ptr<DeviceMatrix> scales_, zeros_;  // no zeros_ on a symmetric grid
  std::unique_ptr<DeviceMatrix> error_;           // [out, in]: W - Q
  std::unique_ptr<PreparedInput> errors_;         // the same, to be multiplied with H
  std::unique_ptr<DeviceMatrix> residual_;        // [out, large block]: these columns of (W - Q) H
  std::unique_ptr<DeviceMatrix> change_;          // [out, large block]: Q after minus Q before
  std::vector<double> gain_;                      // of each row
};

}  // namespace

absl::Status Refine(Device* device, ConstMatrixView weight, const InputStatistics& statistics,
                    QuantizedLinear* quantized) {
  return Refinement(device, weight, statistics, quantized).Run();
}

}  // namespace lwq
