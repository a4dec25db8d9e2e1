// The residual (W - Q) H is one product at the start. Columns are refined in small blocks, whose
// changes reach the others in two steps: those later in the same large block at once, by a product
// with H as it is; everything else when the large block is done, by one product in the type that
// the statistics were made for (in the last sweep only what lies behind). The large products are
// the cost: three and a half for three sweeps, where GPTQ's own updates are half of one.
#include "worker/engine/quant/refinement.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kSmallBlock = 128;
// A sweep gains a little less than half of what the one before it did.
constexpr int kSweeps = 3;

absl::StatusOr<std::unique_ptr<DeviceMatrix>> OnDevice(Device* device, const Matrix& host) {
  LWQ_ASSIGN_OR_RETURN(auto out, device->NewMatrix(host.rows(), host.cols()));
  LWQ_RETURN_IF_ERROR(device->Upload(host.view(), out->view()));
  return out;
}

class Refinement {
 public:
  Refinement(Device* device, ConstMatrixView weight, const BlockedHessian& h,
             QuantizedLinear* quantized)
      : device_(device),
        weight_(weight),
        h_(h),
        quantized_(*quantized),
        grid_(quantized->grid),
        group_size_(grid_.GroupSizeFor(weight.cols)),
        gain_(static_cast<size_t>(weight.rows)) {}

  absl::Status Run() {
    LWQ_ASSIGN_OR_RETURN(scales_, OnDevice(device_, quantized_.scales));
    if (!grid_.symmetric) {
      LWQ_ASSIGN_OR_RETURN(zeros_, OnDevice(device_, quantized_.zeros));
    }
    LWQ_RETURN_IF_ERROR(MakeResidual());
    const int64_t most = std::min(BlockedHessian::kBlock, weight_.cols);
    LWQ_ASSIGN_OR_RETURN(change_, device_->NewMatrix(weight_.rows, most));
    LWQ_ASSIGN_OR_RETURN(current_,
                         device_->NewMatrix(weight_.rows, std::min(kSmallBlock, weight_.cols)));
    for (int sweep = 0; sweep < kSweeps; ++sweep) LWQ_RETURN_IF_ERROR(Sweep(sweep == kSweeps - 1));
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

  // residual_ = (W - Q) H
  absl::Status MakeResidual() {
    const int64_t rows = weight_.rows, cols = weight_.cols;
    LWQ_ASSIGN_OR_RETURN(residual_, device_->NewMatrix(rows, cols));
    LWQ_ASSIGN_OR_RETURN(auto error, device_->NewMatrix(rows, cols));  // Q - W
    LWQ_RETURN_IF_ERROR(device_->Dequantize(quantized_.codes.data(), grid_, scales_->view(),
                                            zeros(), error->view()));
    LWQ_RETURN_IF_ERROR(device_->Subtract(weight_, error->view()));
    LWQ_RETURN_IF_ERROR(device_->FillZero(residual_->view()));
    for (int64_t first = 0; first < cols; first += BlockedHessian::kBlock) {
      const PreparedWeight& h = h_.ColumnsFrom(first);
      LWQ_RETURN_IF_ERROR(device_->SubtractLinear(error->view().Cols(first, h.in_features()), h, 0,
                                                  residual_->view()));
    }
    return absl::OkStatus();
  }

  absl::Status Sweep(bool last) {
    const int64_t cols = weight_.cols;
    for (int64_t first = 0; first < cols; first += BlockedHessian::kBlock) {
      const PreparedWeight& h = h_.ColumnsFrom(first);
      const int64_t end = first + h.in_features();
      Columns columns{.first = first};
      while (columns.first < end) {
        columns = NextColumns(columns.first, end);
        LWQ_RETURN_IF_ERROR(RefineColumns(columns, first));
        columns.first += columns.count;
      }
      const int64_t reached = last ? end : 0;
      if (reached == cols) break;
      LWQ_RETURN_IF_ERROR(device_->SubtractLinear(change_->view().Cols(0, end - first), h, reached,
                                                  residual_->view().Cols(reached, cols - reached)));
    }
    return absl::OkStatus();
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
    const MatrixView current = current_->view().Cols(0, count);
    LWQ_RETURN_IF_ERROR(device_->Copy(residual_->view().Cols(first, count), current));
    LWQ_RETURN_IF_ERROR(device_->SubtractProduct(change_->view().Cols(0, at), h.Rows(0, at),
                                                 ComputeType::kF32, current));
    RefinementBlock block;
    block.residual = current;
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
  QuantizedLinear& quantized_;
  const GridSpec grid_;
  const int64_t group_size_;
  std::unique_ptr<DeviceMatrix> scales_, zeros_;  // no zeros_ on a symmetric grid
  std::unique_ptr<DeviceMatrix> residual_;        // [out, in]
  std::unique_ptr<DeviceMatrix> change_;          // [out, large block]: Q after minus Q before
  std::unique_ptr<DeviceMatrix> current_;         // [out, small block]: residual less changes
  std::vector<double> gain_;                      // of each row
};

}  // namespace

absl::Status Refine(Device* device, ConstMatrixView weight, const InputStatistics& statistics,
                    QuantizedLinear* quantized) {
  return Refinement(device, weight, *statistics.hessian(), quantized).Run();
}

}  // namespace lwq
