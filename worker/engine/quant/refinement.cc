// Two sweeps, there and back, over small blocks of columns inside large ones. On the way there the
// residual (W - Q) H of a large block is one product of all errors as they are when its turn comes.
// It is kept; on the way back only what has changed since then is taken off it, which is the block
// itself and those behind it. Both products are in the type that the statistics were made for;
// inside a large block the changes of each small one reach those after it by a product with H as it
// is. The large products are the cost: with GPTQ's own updates as one, two there and at best one
// back.
#include "worker/engine/quant/refinement.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kSmallBlock = 128;
constexpr int64_t kLargeBlock = BlockedHessian::kBlock;

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
    LWQ_ASSIGN_OR_RETURN(residual_, device_->NewMatrix(weight_.rows, weight_.cols));
    LWQ_ASSIGN_OR_RETURN(change_, device_->NewMatrix(weight_.rows, weight_.cols));
    LWQ_ASSIGN_OR_RETURN(small_block_, device_->NewMatrix(weight_.rows, kSmallBlock));
    LWQ_RETURN_IF_ERROR(SweepThere());
    LWQ_RETURN_IF_ERROR(SweepBack());
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

  int64_t LargeBlockAt(int64_t first) const { return std::min(kLargeBlock, weight_.cols - first); }

  absl::Status SweepThere() {
    LWQ_ASSIGN_OR_RETURN(auto error, device_->NewMatrix(weight_.rows, weight_.cols));
    LWQ_RETURN_IF_ERROR(device_->Dequantize(quantized_.codes.data(), grid_, scales_->view(),
                                            zeros(), error->view()));
    LWQ_RETURN_IF_ERROR(device_->Subtract(weight_, error->view(), error->view()));
    LWQ_ASSIGN_OR_RETURN(auto errors, device_->NewInput(weight_.rows, weight_.cols, compute_));
    LWQ_RETURN_IF_ERROR(device_->SetColumns(error->view(), 0, *errors));
    for (int64_t first = 0; first < weight_.cols; first += kLargeBlock) {
      const int64_t count = LargeBlockAt(first);
      LWQ_RETURN_IF_ERROR(
          device_->Linear(*errors, h_.ColumnsFrom(first), residual_->view().Cols(first, count)));
      const MatrixView change = change_->view().Cols(first, count);
      LWQ_RETURN_IF_ERROR(RefineLargeBlock(first, change));
      const MatrixView left = error->view().Cols(first, count);
      LWQ_RETURN_IF_ERROR(device_->Subtract(left, change, left));
      LWQ_RETURN_IF_ERROR(device_->SetColumns(left, first, *errors));
    }
    return absl::OkStatus();
  }

  absl::Status SweepBack() {
    LWQ_ASSIGN_OR_RETURN(auto changes, device_->NewInput(weight_.rows, weight_.cols, compute_));
    LWQ_ASSIGN_OR_RETURN(auto further, device_->NewMatrix(weight_.rows, kLargeBlock));
    for (int64_t first = (weight_.cols - 1) / kLargeBlock * kLargeBlock; first >= 0;
         first -= kLargeBlock) {
      const int64_t count = LargeBlockAt(first);
      const MatrixView change = change_->view().Cols(first, count);
      LWQ_RETURN_IF_ERROR(device_->SetColumns(change, first, *changes));
      LWQ_RETURN_IF_ERROR(device_->SubtractLinear(*changes, h_.ColumnsFrom(first),
                                                  residual_->view().Cols(first, count)));
      const MatrixView more = further->view().Cols(0, count);
      LWQ_RETURN_IF_ERROR(RefineLargeBlock(first, more));
      LWQ_RETURN_IF_ERROR(device_->Add(more, change));
      LWQ_RETURN_IF_ERROR(device_->SetColumns(change, first, *changes));
    }
    return absl::OkStatus();
  }

  // Refines the large block at `first` by its residual, which stays as it is; writes the change.
  absl::Status RefineLargeBlock(int64_t first, MatrixView change) {
    Columns columns{.first = first};
    while (columns.first < first + change.cols) {
      columns = NextColumns(columns.first, first + change.cols);
      LWQ_RETURN_IF_ERROR(RefineColumns(columns, first, change));
      columns.first += columns.count;
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

  // `block_first`: where the large block begins, in which all columns before these are done;
  // `block_change` [out, large block]: what they changed.
  absl::Status RefineColumns(const Columns& columns, int64_t block_first, MatrixView block_change) {
    const auto [first, count, whole_groups] = columns;
    const int64_t at = first - block_first;
    const ConstMatrixView h = h_.diagonal->view().Rows(block_first, at + count).Cols(at, count);
    LWQ_ASSIGN_OR_RETURN(
        const ConstMatrixView residual,
        ResidualNow(residual_->view().Cols(first, count), block_change.Cols(0, at), h.Rows(0, at)));
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
    block.change = block_change.Cols(at, count);
    LWQ_RETURN_IF_ERROR(device_->RefineBlock(block, absl::MakeSpan(gain_)));
    for (const double g : gain_) quantized_.record.refinement_gain += g;
    return absl::OkStatus();
  }

  // kept - change h, without touching what is kept.
  absl::StatusOr<ConstMatrixView> ResidualNow(ConstMatrixView kept, ConstMatrixView change,
                                              ConstMatrixView h) {
    if (change.cols == 0) return kept;
    const MatrixView now = small_block_->view().Cols(0, kept.cols);
    LWQ_RETURN_IF_ERROR(device_->Copy(kept, now));
    LWQ_RETURN_IF_ERROR(device_->SubtractProduct(change, h, now));
    return now;
  }

  Device* const device_;
  const ConstMatrixView weight_;
  const BlockedHessian& h_;
  const ComputeType compute_;
  QuantizedLinear& quantized_;
  const GridSpec grid_;
  const int64_t group_size_;
  std::unique_ptr<DeviceMatrix> scales_, zeros_;  // no zeros_ on a symmetric grid
  // [out, in]: these columns of (W - Q) H, as the last visit to their large block found them.
  std::unique_ptr<DeviceMatrix> residual_;
  std::unique_ptr<DeviceMatrix> change_;       // [out, in]: Q now minus Q before the sweep there
  std::unique_ptr<DeviceMatrix> small_block_;  // [out, kSmallBlock]
  std::vector<double> gain_;                   // of each row
};

}  // namespace

absl::Status Refine(Device* device, ConstMatrixView weight, const InputStatistics& statistics,
                    QuantizedLinear* quantized) {
  return Refinement(device, weight, statistics, quantized).Run();
}

}  // namespace lwq
