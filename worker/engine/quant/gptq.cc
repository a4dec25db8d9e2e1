// GPTQ (methods 3.1): columns are rounded one after the other and each error is pushed onto the
// columns still to come, by the factor U of the inverse Hessian. Inside a small block of columns
// this is Device::GptqBlock; the rest of its large block is updated after each small one, all
// columns behind once a large block by one product in the type that the statistics were made for.
//
// With act-order, columns go by descending diagonal and every group's grid is fitted beforehand on
// the original weights (static groups), so the codes keep the plain layout. Without it, a group's
// grid is fitted when its first column is reached, on the weights as updated so far, and small
// blocks never straddle groups: the result does not depend on block sizes. The scale search is
// weighted with the damped diagonal of H.
//
// Widths up to kMaxRefinedBits are then refined (refinement.h) where the statistics kept H.
//
// Memory for a weight [m, n]: one working copy at a time whatever the number of widths (while
// refining three and a rounded one), the codes of every width, and an [m, kLargeBlock] buffer.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "worker/engine/quant/linear_checks.h"
#include "worker/engine/quant/quantizer.h"
#include "worker/engine/quant/refinement.h"
#include "worker/engine/quant/rtn.h"

namespace lwq {

extern const QuantizerDef quantizer_gptq;

namespace {

constexpr int64_t kSmallBlock = 128;
constexpr int64_t kLargeBlock = BlockedFactor::kBlock;
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
  // `codes` serves one run after the other.
  GptqRun(Device* device, ConstMatrixView weight, const InputStatistics& statistics,
          const float* column_weight, const GridSpec& grid, std::vector<uint8_t>* codes)
      : device_(device),
        weight_(weight),
        statistics_(statistics),
        factor_(*statistics.factor()),
        u_(factor_.u->view()),
        column_weight_(column_weight),
        grid_(grid),
        group_size_(grid.GroupSizeFor(weight.cols)),
        codes_(*codes),
        loss_(static_cast<size_t>(weight.rows)) {}

  absl::StatusOr<QuantizedLinear> Run() {
    LWQ_RETURN_IF_ERROR(Prepare());
    const int64_t n = weight_.cols;
    for (int64_t begin = 0; begin < n; begin += kLargeBlock) {
      LWQ_RETURN_IF_ERROR(RoundLargeBlock(begin, std::min(n, begin + kLargeBlock)));
    }
    LWQ_RETURN_IF_ERROR(device_->Download(scales_->view(), out_.scales.view()));
    if (zeros_ != nullptr) {
      LWQ_RETURN_IF_ERROR(device_->Download(zeros_->view(), out_.zeros.view()));
    }
    TakeCodes();
    out_.record.method = std::string(quantizer_gptq.name);
    return std::move(out_);
  }

 private:
  MatrixView Zeros() const { return zeros_ == nullptr ? MatrixView() : zeros_->view(); }

  absl::Status Prepare() {
    const int64_t rows = weight_.rows, cols = weight_.cols;
    out_.out_features = rows;
    out_.in_features = cols;
    out_.grid = grid_;
    codes_.resize(rows * cols);
    const int64_t num_groups = grid_.NumGroups(cols);
    out_.scales = Matrix(rows, num_groups);
    LWQ_ASSIGN_OR_RETURN(scales_, device_->NewMatrix(rows, num_groups));
    if (!grid_.symmetric) {
      out_.zeros = Matrix(rows, num_groups);
      LWQ_ASSIGN_OR_RETURN(zeros_, device_->NewMatrix(rows, num_groups));
    }
    LWQ_ASSIGN_OR_RETURN(work_, device_->NewMatrix(rows, cols));
    LWQ_ASSIGN_OR_RETURN(error_, device_->NewMatrix(rows, std::min(kLargeBlock, cols)));
    LWQ_RETURN_IF_ERROR(device_->GatherColumns(weight_, statistics_.order(), work_->view()));
    return statistics_.act_order() ? FitGroups(weight_, 0) : absl::OkStatus();
  }

  // Fits the grids of the groups that `columns` holds, from `first_group` on.
  absl::Status FitGroups(ConstMatrixView columns, int64_t first_group) {
    const int64_t count = columns.cols / group_size_;
    GridSpec grid = grid_;
    grid.group_size = group_size_;
    return device_->FitGrid(
        columns, grid, column_weight_ + first_group * group_size_,
        scales_->view().Cols(first_group, count),
        zeros_ == nullptr ? MatrixView() : zeros_->view().Cols(first_group, count));
  }

  // Without act-order: fits the group that begins at column `first` to the weights as updated so
  // far, inside the large block [begin, end) too. What lies behind that gets its updates only when
  // the block is done, so a group that reaches there is fitted on a copy that has them.
  absl::Status FitGroupAt(int64_t first, int64_t begin, int64_t end) {
    const int64_t group_end = first + group_size_;
    const MatrixView group = work_->view().Cols(first, group_size_);
    if (group_end <= end || first == begin) return FitGroups(group, first / group_size_);
    LWQ_ASSIGN_OR_RETURN(auto copy, device_->NewMatrix(weight_.rows, group_size_));
    LWQ_RETURN_IF_ERROR(device_->Copy(group, copy->view()));
    LWQ_RETURN_IF_ERROR(
        device_->SubtractProduct(error_->view().Cols(0, first - begin),
                                 u_.Rows(begin, first - begin).Cols(end, group_end - end),
                                 copy->view().Cols(end - first, group_end - end)));
    return FitGroups(copy->view(), first / group_size_);
  }

  // Columns [begin, end): small blocks with what they change inside, then the columns behind.
  absl::Status RoundLargeBlock(int64_t begin, int64_t end) {
    int64_t count = 0;
    for (int64_t first = begin; first < end; first += count) {
      count = std::min(kSmallBlock, end - first);
      if (!statistics_.act_order()) {
        const int64_t group_end = (first / group_size_ + 1) * group_size_;
        count = std::min(count, group_end - first);
        if (first % group_size_ == 0) LWQ_RETURN_IF_ERROR(FitGroupAt(first, begin, end));
      }
      const MatrixView error = error_->view().Cols(first - begin, count);
      LWQ_RETURN_IF_ERROR(RoundColumns(first, count, error));
      const int64_t next = first + count;
      LWQ_RETURN_IF_ERROR(device_->SubtractProduct(error,
                                                   u_.Rows(first, count).Cols(next, end - next),
                                                   work_->view().Cols(next, end - next)));
    }
    if (end == weight_.cols) return absl::OkStatus();
    return device_->SubtractLinear(error_->view(), factor_.RowsFrom(begin),
                                   work_->view().Cols(end, weight_.cols - end));
  }

  absl::Status RoundColumns(int64_t first, int64_t count, MatrixView error) {
    GptqColumns block;
    block.w = work_->view().Cols(first, count);
    block.u = u_.Rows(first, count).Cols(first, count);
    block.grid = grid_;
    block.scales = scales_->view();
    block.zeros = Zeros();
    block.columns = absl::MakeConstSpan(statistics_.order()).subspan(first, count);
    block.in_features = weight_.cols;
    block.codes = codes_.data() + first;
    block.error = error;
    LWQ_RETURN_IF_ERROR(device_->GptqBlock(block, absl::MakeSpan(loss_)));
    for (const double loss : loss_) out_.record.calibrated_error += loss;
    return absl::OkStatus();
  }

  // Puts the codes into the columns' original order.
  void TakeCodes() {
    if (!statistics_.act_order()) {
      out_.codes = codes_;
      return;
    }
    const std::vector<int32_t>& order = statistics_.order();
    out_.codes.resize(codes_.size());
    device_->host_threads().ParallelFor(weight_.rows, [&](int64_t r) {
      const uint8_t* from = codes_.data() + r * weight_.cols;
      uint8_t* to = out_.codes.data() + r * weight_.cols;
      for (int64_t j = 0; j < weight_.cols; ++j) to[order[j]] = from[j];
    });
  }

  Device* const device_;
  const ConstMatrixView weight_;
  const InputStatistics& statistics_;
  const BlockedFactor& factor_;
  const ConstMatrixView u_;
  const float* const column_weight_;
  const GridSpec grid_;
  const int64_t group_size_;
  QuantizedLinear out_;
  std::unique_ptr<DeviceMatrix> scales_, zeros_;  // no zeros_ on a symmetric grid
  std::unique_ptr<DeviceMatrix> work_;            // [m, n], columns in the order of processing
  std::unique_ptr<DeviceMatrix> error_;           // [m, kLargeBlock]
  std::vector<uint8_t>& codes_;                   // [m, n], in the order of processing
  std::vector<double> loss_;                      // of each row
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
    std::vector<uint8_t> codes;
    for (const GridSpec& grid : grids) {
      QuantizedLinear quantized;
      if (statistics->factor() == nullptr) {
        LWQ_ASSIGN_OR_RETURN(quantized, RoundToNearest(device, weight, grid, column_weight));
        quantized.record.note = "no factor of the inputs' second moments; rounded to nearest";
      } else {
        LWQ_ASSIGN_OR_RETURN(
            quantized, GptqRun(device, weight, *statistics, column_weight, grid, &codes).Run());
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
