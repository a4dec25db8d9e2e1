// The residual (W - Q) H is one product at the start; after each block of columns, one product more
// brings the others up to date, in the last sweep only those behind it. These products are the
// cost: three and a half for three sweeps, where GPTQ's own updates are half of one.
#include "worker/engine/quant/refinement.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kBlock = 128;
// A sweep gains a little less than half of what the one before it did.
constexpr int kSweeps = 3;

// Columns handled together: whole groups as far as they fit, else part of one.
int64_t BlockSize(int64_t group_size) {
  return group_size >= kBlock ? kBlock : kBlock / group_size * group_size;
}

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
        h_(statistics.hessian()->view()),
        quantized_(*quantized),
        grid_(quantized->grid),
        group_size_(grid_.GroupSizeFor(weight.cols)),
        block_size_(BlockSize(group_size_)),
        gain_(static_cast<size_t>(weight.rows)) {}

  absl::Status Run() {
    LWQ_ASSIGN_OR_RETURN(scales_, OnDevice(device_, quantized_.scales));
    if (!grid_.symmetric) {
      LWQ_ASSIGN_OR_RETURN(zeros_, OnDevice(device_, quantized_.zeros));
    }
    LWQ_RETURN_IF_ERROR(MakeResidual());
    LWQ_ASSIGN_OR_RETURN(change_,
                         device_->NewMatrix(weight_.rows, std::min(block_size_, weight_.cols)));
    for (int sweep = 0; sweep < kSweeps; ++sweep) LWQ_RETURN_IF_ERROR(Sweep(sweep == kSweeps - 1));
    quantized_.record.calibrated_error -= quantized_.record.refinement_gain;
    return device_->Download(scales_->view(), quantized_.scales.view());
  }

 private:
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
    return device_->SubtractProduct(error->view(), h_, residual_->view());
  }

  absl::Status Sweep(bool last) {
    const int64_t cols = weight_.cols;
    int64_t count = 0;
    for (int64_t first = 0; first < cols; first += count) {
      // A block ends where its group does.
      const int64_t group_end = first / group_size_ * group_size_ + group_size_;
      count = std::min(
          {block_size_, cols - first, group_size_ > kBlock ? group_end - first : block_size_});
      LWQ_RETURN_IF_ERROR(RefineColumns(first, count));
      const int64_t next = last ? first + count : 0;
      if (next == cols) break;
      LWQ_RETURN_IF_ERROR(device_->SubtractProduct(change_->view().Cols(0, count),
                                                   h_.Rows(first, count).Cols(next, cols - next),
                                                   residual_->view().Cols(next, cols - next)));
    }
    return absl::OkStatus();
  }

  absl::Status RefineColumns(int64_t first, int64_t count) {
    const int64_t first_group = first / group_size_;
    const int64_t num_groups = std::max<int64_t>(1, count / group_size_);
    RefinementBlock block;
    block.residual = residual_->view().Cols(first, count);
    block.h = h_.Rows(first, count).Cols(first, count);
    block.grid = grid_;
    block.grid.group_size = std::min(group_size_, count);
    block.refit_scales = grid_.search && group_size_ <= count;
    block.scales = scales_->view().Cols(first_group, num_groups);
    if (zeros_ != nullptr) block.zeros = zeros().Cols(first_group, num_groups);
    block.codes = quantized_.codes.data() + first;
    block.code_stride = weight_.cols;
    block.change = change_->view().Cols(0, count);
    LWQ_RETURN_IF_ERROR(device_->RefineBlock(block, absl::MakeSpan(gain_)));
    for (const double g : gain_) quantized_.record.refinement_gain += g;
    return absl::OkStatus();
  }

  Device* const device_;
  const ConstMatrixView weight_;
  const ConstMatrixView h_;
  QuantizedLinear& quantized_;
  const GridSpec grid_;
  const int64_t group_size_;
  const int64_t block_size_;
  std::unique_ptr<DeviceMatrix> scales_, zeros_;  // no zeros_ on a symmetric grid
  std::unique_ptr<DeviceMatrix> residual_;        // [out, in]
  std::unique_ptr<DeviceMatrix> change_;          // [out, block], W - Q's
  std::vector<double> gain_;                      // of each row
};

}  // namespace

absl::Status Refine(Device* device, ConstMatrixView weight, const InputStatistics& statistics,
                    QuantizedLinear* quantized) {
  return Refinement(device, weight, statistics, quantized).Run();
}

}  // namespace lwq
