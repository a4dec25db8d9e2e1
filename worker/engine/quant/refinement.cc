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

#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kSmallBlock = 128;
constexpr int64_t kLargeBlock = BlockedHessian::kBlock;

class Refinement {
 public:
  Refinement(Device* device, DeviceView<const float> weight, const InputStatistics& statistics,
             DeviceLinear* linear)
      : device_(device),
        weight_(weight),
        h_(*statistics.hessian()),
        compute_(statistics.compute()),
        linear_(*linear),
        grid_(linear->grid),
        group_size_(grid_.GroupSizeFor(weight.cols)) {}

  absl::Status Run() {
    LWQ_ASSIGN_OR_RETURN(linear_.gain, device_->NewBuffer<double>(1, weight_.rows));
    LWQ_RETURN_IF_ERROR(device_->FillZero(linear_.gain->span()));
    LWQ_ASSIGN_OR_RETURN(residual_, device_->NewMatrix(weight_.rows, weight_.cols));
    LWQ_ASSIGN_OR_RETURN(change_, device_->NewMatrix(weight_.rows, weight_.cols));
    LWQ_ASSIGN_OR_RETURN(small_block_, device_->NewMatrix(weight_.rows, kSmallBlock));
    LWQ_RETURN_IF_ERROR(SweepThere());
    return SweepBack();
  }

 private:
  // A small block: whole groups, or a part of one.
  struct Columns {
    int64_t first = 0;
    int64_t count = 0;
    bool whole_groups = true;
  };

  int64_t LargeBlockAt(int64_t first) const { return std::min(kLargeBlock, weight_.cols - first); }

  absl::Status SweepThere() {
    LWQ_ASSIGN_OR_RETURN(auto error, device_->NewMatrix(weight_.rows, weight_.cols));
    LWQ_RETURN_IF_ERROR(device_->Dequantize(linear_.codes->view(), grid_, linear_.scales->view(),
                                            linear_.zeros_view(), error->view()));
    LWQ_RETURN_IF_ERROR(device_->Subtract(weight_, error->view(), error->view()));
    LWQ_ASSIGN_OR_RETURN(auto errors, device_->NewInput(weight_.rows, weight_.cols, compute_));
    LWQ_RETURN_IF_ERROR(device_->SetColumns(error->view(), 0, *errors));
    for (int64_t first = 0; first < weight_.cols; first += kLargeBlock) {
      const int64_t count = LargeBlockAt(first);
      LWQ_RETURN_IF_ERROR(
          device_->Linear(*errors, h_.ColumnsFrom(first), residual_->view().Cols(first, count)));
      const DeviceView<float> change = change_->view().Cols(first, count);
      LWQ_RETURN_IF_ERROR(RefineLargeBlock(first, change));
      const DeviceView<float> left = error->view().Cols(first, count);
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
      const DeviceView<float> change = change_->view().Cols(first, count);
      LWQ_RETURN_IF_ERROR(device_->SetColumns(change, first, *changes));
      LWQ_RETURN_IF_ERROR(device_->SubtractLinear(*changes, h_.ColumnsFrom(first),
                                                  residual_->view().Cols(first, count)));
      const DeviceView<float> more = further->view().Cols(0, count);
      LWQ_RETURN_IF_ERROR(RefineLargeBlock(first, more));
      LWQ_RETURN_IF_ERROR(device_->Add(more, change));
      LWQ_RETURN_IF_ERROR(device_->SetColumns(change, first, *changes));
    }
    return absl::OkStatus();
  }

  // Refines the large block at `first` by its residual, which stays as it is; writes the change.
  absl::Status RefineLargeBlock(int64_t first, DeviceView<float> change) {
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
  absl::Status RefineColumns(const Columns& columns, int64_t block_first,
                             DeviceView<float> block_change) {
    const auto [first, count, whole_groups] = columns;
    const int64_t at = first - block_first;
    const DeviceView<const float> h =
        h_.diagonal->view().Rows(block_first, at + count).Cols(at, count);
    LWQ_ASSIGN_OR_RETURN(
        const DeviceView<const float> residual,
        ResidualNow(residual_->view().Cols(first, count), block_change.Cols(0, at), h.Rows(0, at)));
    RefinementBlock block;
    block.residual = residual;
    block.h = h.Rows(at, count);
    block.grid = grid_;
    block.grid.group_size = whole_groups ? group_size_ : count;
    block.refit_scales = grid_.search && whole_groups;
    const int64_t first_group = first / group_size_;
    const int64_t num_groups = count / block.grid.group_size;
    block.scales = linear_.scales->view().Cols(first_group, num_groups);
    if (!grid_.symmetric) block.zeros = linear_.zeros_view().Cols(first_group, num_groups);
    block.codes = linear_.codes->view().Cols(first, count);
    block.change = block_change.Cols(at, count);
    block.gain = linear_.gain->span();
    return device_->RefineBlock(block);
  }

  // kept - change h, without touching what is kept.
  absl::StatusOr<DeviceView<const float>> ResidualNow(DeviceView<const float> kept,
                                                      DeviceView<const float> change,
                                                      DeviceView<const float> h) {
    if (change.cols == 0) return kept;
    const DeviceView<float> now = small_block_->view().Cols(0, kept.cols);
    LWQ_RETURN_IF_ERROR(device_->Copy(kept, now));
    LWQ_RETURN_IF_ERROR(device_->SubtractProduct(change, h, now));
    return now;
  }

  Device* const device_;
  const DeviceView<const float> weight_;
  const BlockedHessian& h_;
  const ComputeType compute_;
  DeviceLinear& linear_;
  const GridSpec grid_;
  const int64_t group_size_;
  // [out, in]: these columns of (W - Q) H, as the last visit to their large block found them.
  std::unique_ptr<DeviceMatrix> residual_;
  std::unique_ptr<DeviceMatrix> change_;       // [out, in]: Q now minus Q before the sweep there
  std::unique_ptr<DeviceMatrix> small_block_;  // [out, kSmallBlock]
};

}  // namespace

absl::Status Refine(Device* device, DeviceView<const float> weight,
                    const InputStatistics& statistics, DeviceLinear* linear) {
  return Refinement(device, weight, statistics, linear).Run();
}

}  // namespace lwq
