// GPTQ (methods 3.1): columns are rounded one after the other and each error is pushed onto the
// columns still to come, by the factor U of the inverse Hessian. Inside a block of columns this is
// Device::GptqBlock; the rest of the weight is updated once a block by one matrix product.
//
// With act-order, columns go by descending diagonal and every group's grid is fitted beforehand on
// the original weights (static groups), so the codes keep the plain layout. Without it, a group's
// grid is fitted when its first column is reached, on the weights as updated so far, and blocks
// never straddle groups: the result does not depend on the block size. The scale search is weighted
// with the damped diagonal of H.
//
// Widths up to kMaxRefinedBits are then refined (refinement.h) where the statistics kept H.
//
// Memory for a weight [m, n]: one working copy at a time whatever the number of widths (two while
// refining), the codes of every width, and [m, kBlock] buffers.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/quant/linear_checks.h"
#include "worker/engine/quant/quantizer.h"
#include "worker/engine/quant/refinement.h"
#include "worker/engine/quant/rtn.h"

namespace lwq {

extern const QuantizerDef quantizer_gptq;

namespace {

constexpr int64_t kBlock = 128;
constexpr int64_t kRowsPerCopy = 64;
// Above it the error is already hundreds of times smaller than what 4 bits leave.
constexpr int kMaxRefinedBits = 4;

// diag(H) with its damping, [1, K] in device memory: what the scale search weighs columns with.
absl::StatusOr<std::unique_ptr<DeviceMatrix>> DampedDiagonal(Device* device,
                                                             const InputStatistics& statistics) {
  const int64_t n = statistics.in_features();
  Matrix diagonal(1, n);
  LWQ_RETURN_IF_ERROR(device->Download(statistics.diagonal().view(), diagonal.view()));
  double mean = 0;
  for (int64_t k = 0; k < n; ++k) mean += diagonal.Row(0)[k] / static_cast<double>(n);
  // Without a factor there is no damping; a floor keeps columns without inputs from being ignored.
  const double ridge = std::max(statistics.damping_used(), 1e-4) * mean;
  for (int64_t k = 0; k < n; ++k) {
    diagonal.Row(0)[k] = mean > 0 ? static_cast<float>(diagonal.Row(0)[k] + ridge) : 1.0f;
  }
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<DeviceMatrix> out, device->NewMatrix(1, n));
  LWQ_RETURN_IF_ERROR(device->Upload(diagonal.view(), out->view()));
  return out;
}

// One weight at one width.
class GptqRun {
 public:
  GptqRun(Device* device, ConstMatrixView weight, const InputStatistics& statistics,
          const float* column_weight, const GridSpec& grid)
      : device_(device),
        weight_(weight),
        statistics_(statistics),
        column_weight_(column_weight),
        grid_(grid),
        group_size_(grid.GroupSizeFor(weight.cols)),
        codes_(weight.rows * kBlock),
        host_block_(weight.rows, kBlock) {}

  absl::StatusOr<QuantizedLinear> Run() {
    LWQ_RETURN_IF_ERROR(Prepare());
    const int64_t n = weight_.cols;
    int64_t count = 0;
    for (int64_t first = 0; first < n; first += count) {
      count = std::min(kBlock, n - first);
      if (!statistics_.act_order()) {
        const int64_t group_end = (first / group_size_ + 1) * group_size_;
        count = std::min(count, group_end - first);
        if (first % group_size_ == 0) LWQ_RETURN_IF_ERROR(FitGroups(first / group_size_, 1));
      }
      LWQ_RETURN_IF_ERROR(QuantizeBlock(first, count));
    }
    out_.record.method = std::string(quantizer_gptq.name);
    return std::move(out_);
  }

 private:
  absl::Status Prepare() {
    out_.out_features = weight_.rows;
    out_.in_features = weight_.cols;
    out_.grid = grid_;
    out_.codes.resize(weight_.rows * weight_.cols);
    const int64_t num_groups = grid_.NumGroups(weight_.cols);
    out_.scales = Matrix(weight_.rows, num_groups);
    if (!grid_.symmetric) out_.zeros = Matrix(weight_.rows, num_groups);
    LWQ_ASSIGN_OR_RETURN(work_, device_->NewMatrix(weight_.rows, weight_.cols));
    LWQ_ASSIGN_OR_RETURN(error_, device_->NewMatrix(weight_.rows, kBlock));
    LWQ_ASSIGN_OR_RETURN(scale_of_, device_->NewMatrix(weight_.rows, kBlock));
    LWQ_ASSIGN_OR_RETURN(zero_of_, device_->NewMatrix(weight_.rows, kBlock));
    LWQ_RETURN_IF_ERROR(CopyPermuted());
    if (!statistics_.act_order()) return absl::OkStatus();
    return FitGroups(0, num_groups);
  }

  // work_ = weight_ with its columns in the order of processing.
  absl::Status CopyPermuted() {
    const std::vector<int32_t>& order = statistics_.order();
    Matrix from(std::min(kRowsPerCopy, weight_.rows), weight_.cols);
    Matrix to(from.rows(), from.cols());
    for (int64_t r = 0; r < weight_.rows; r += kRowsPerCopy) {
      const int64_t count = std::min(kRowsPerCopy, weight_.rows - r);
      LWQ_RETURN_IF_ERROR(device_->Download(weight_.Rows(r, count), from.view().Rows(0, count)));
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t j = 0; j < weight_.cols; ++j) to.Row(i)[j] = from.Row(i)[order[j]];
      }
      LWQ_RETURN_IF_ERROR(device_->Upload(to.view().Rows(0, count), work_->Rows(r, count)));
    }
    return absl::OkStatus();
  }

  // Fits the grids of `count` groups from `first`: on the original weights with act-order, else on
  // the current ones, whose columns are in the original order then.
  absl::Status FitGroups(int64_t first, int64_t count) {
    const ConstMatrixView source =
        statistics_.act_order() ? weight_ : ConstMatrixView(work_->view());
    LWQ_ASSIGN_OR_RETURN(std::unique_ptr<DeviceMatrix> scales,
                         device_->NewMatrix(weight_.rows, count));
    std::unique_ptr<DeviceMatrix> zeros;
    if (!grid_.symmetric) {
      LWQ_ASSIGN_OR_RETURN(zeros, device_->NewMatrix(weight_.rows, count));
    }
    GridSpec grid = grid_;
    grid.group_size = group_size_;
    LWQ_RETURN_IF_ERROR(device_->FitGrid(source.Cols(first * group_size_, count * group_size_),
                                         grid, column_weight_ + first * group_size_, scales->view(),
                                         zeros == nullptr ? MatrixView() : zeros->view()));
    LWQ_RETURN_IF_ERROR(device_->Download(scales->view(), out_.scales.view().Cols(first, count)));
    if (zeros == nullptr) return absl::OkStatus();
    return device_->Download(zeros->view(), out_.zeros.view().Cols(first, count));
  }

  // Looks up `grid_values` [m, groups] for the block's columns and uploads them to `to`.
  absl::Status UploadPerColumn(const Matrix& grid_values, int64_t count, DeviceMatrix* to) {
    for (int64_t r = 0; r < weight_.rows; ++r) {
      const float* from = grid_values.Row(r);
      for (int64_t j = 0; j < count; ++j) host_block_.Row(r)[j] = from[group_of_[j]];
    }
    return device_->Upload(host_block_.view().Cols(0, count), to->view().Cols(0, count));
  }

  absl::Status UploadGrid(int64_t first, int64_t count) {
    group_of_.resize(count);
    for (int64_t j = 0; j < count; ++j) {
      group_of_[j] = statistics_.order()[first + j] / group_size_;
    }
    LWQ_RETURN_IF_ERROR(UploadPerColumn(out_.scales, count, scale_of_.get()));
    if (!grid_.symmetric) return UploadPerColumn(out_.zeros, count, zero_of_.get());
    if (first > 0) return absl::OkStatus();
    std::fill_n(host_block_.data(), host_block_.size(), static_cast<float>(1 << (grid_.bits - 1)));
    return device_->Upload(host_block_.view(), zero_of_->view());
  }

  absl::Status QuantizeBlock(int64_t first, int64_t count) {
    LWQ_RETURN_IF_ERROR(UploadGrid(first, count));
    const ConstMatrixView u = statistics_.inverse_cholesky()->view();
    const MatrixView error = error_->view().Cols(0, count);
    LWQ_RETURN_IF_ERROR(device_->GptqBlock(
        work_->view().Cols(first, count), u.Rows(first, count).Cols(first, count), grid_.bits,
        scale_of_->view().Cols(0, count), zero_of_->view().Cols(0, count), codes_.data(), kBlock,
        error));
    for (int64_t r = 0; r < weight_.rows; ++r) {
      uint8_t* to = out_.codes.data() + r * weight_.cols;
      const uint8_t* from = codes_.data() + r * kBlock;
      for (int64_t j = 0; j < count; ++j) to[statistics_.order()[first + j]] = from[j];
    }
    LWQ_RETURN_IF_ERROR(device_->Download(error, host_block_.view().Cols(0, count)));
    for (int64_t r = 0; r < weight_.rows; ++r) {
      for (int64_t j = 0; j < count; ++j) {
        const double e = host_block_.Row(r)[j];
        out_.record.calibrated_error += e * e;
      }
    }
    const int64_t next = first + count;
    const int64_t rest = weight_.cols - next;
    if (rest == 0) return absl::OkStatus();
    return device_->SubtractProduct(error, u.Rows(first, count).Cols(next, rest),
                                    work_->view().Cols(next, rest));
  }

  Device* const device_;
  const ConstMatrixView weight_;
  const InputStatistics& statistics_;
  const float* const column_weight_;
  const GridSpec grid_;
  const int64_t group_size_;
  QuantizedLinear out_;
  std::unique_ptr<DeviceMatrix> work_;      // [m, n], columns in the order of processing
  std::unique_ptr<DeviceMatrix> error_;     // [m, kBlock], as the next two
  std::unique_ptr<DeviceMatrix> scale_of_;  // of each column of the block
  std::unique_ptr<DeviceMatrix> zero_of_;
  std::vector<uint8_t> codes_;  // [m, kBlock]
  Matrix host_block_;           // [m, kBlock]
  std::vector<int64_t> group_of_;
};

class GptqQuantizer : public Quantizer {
 public:
  absl::StatusOr<std::vector<QuantizedLinear>> Quantize(
      Device* device, ConstMatrixView weight, const InputStatistics* statistics,
      absl::Span<const GridSpec> grids) const override {
    if (statistics == nullptr) {
      return InvalidFailure("CALIBRATION_MISSING",
                            absl::StrCat(quantizer_gptq.name, " needs the inputs' second moments"));
    }
    if (statistics->in_features() != weight.cols) {
      return InvalidFailure("SHAPE", absl::StrCat("second moments of ", statistics->in_features(),
                                                  " inputs given for a weight with ", weight.cols));
    }
    LWQ_RETURN_IF_ERROR(CheckQuantizable(device, weight, grids));
    LWQ_ASSIGN_OR_RETURN(std::unique_ptr<DeviceMatrix> diagonal,
                         DampedDiagonal(device, *statistics));
    const float* column_weight = diagonal->view().data;
    std::vector<QuantizedLinear> out;
    for (const GridSpec& grid : grids) {
      QuantizedLinear quantized;
      if (statistics->inverse_cholesky() == nullptr) {
        LWQ_ASSIGN_OR_RETURN(quantized, RoundToNearest(device, weight, grid, column_weight));
        quantized.record.note = "no factor of the inputs' second moments; rounded to nearest";
      } else {
        LWQ_ASSIGN_OR_RETURN(quantized,
                             GptqRun(device, weight, *statistics, column_weight, grid).Run());
        if (statistics->hessian() != nullptr && grid.bits <= kMaxRefinedBits) {
          LWQ_RETURN_IF_ERROR(Refine(device, weight, *statistics, &quantized));
        }
        LWQ_ASSIGN_OR_RETURN(quantized.record.relative_weight_error,
                             RelativeWeightError(device, weight, quantized));
      }
      quantized.record.damping = statistics->damping_used();
      quantized.record.damping_retries = statistics->damping_retries();
      quantized.record.num_dead_columns = statistics->num_dead_columns();
      out.push_back(std::move(quantized));
    }
    return out;
  }
};

std::unique_ptr<Quantizer> MakeGptq() { return std::make_unique<GptqQuantizer>(); }

}  // namespace

constinit const QuantizerDef quantizer_gptq = {
    .name = "gptq",
    .help = "rounds column by column and makes up for each error in the columns that follow",
    .needs_calibration = true,
    .make = &MakeGptq,
};

}  // namespace lwq
