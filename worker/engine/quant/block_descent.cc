// A sweep goes over large blocks of columns. The residual (W - Q) H of one is a product of all
// errors as they are when its turn comes, in the type that the statistics were made for; inside it
// every row keeps its residual up to date by itself. The products are the cost: one of the weight's
// size with H a sweep.
#include "worker/engine/quant/block_descent.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "worker/engine/quant/block_refinement.h"

namespace lwq {
namespace {

constexpr int64_t kLargeBlock = BlockedHessian::kBlock;
constexpr int64_t kRowsPerTask = 4;
static_assert(kLargeBlock % kMaxGgufBlock == 0, "a block lies in one large block");

class BlockDescent {
 public:
  BlockDescent(Device* device, const GgufTypeDef& type, const InputStatistics& statistics,
               const BlockMethod& method, const BlockRows& rows)
      : device_(device),
        type_(type),
        h_(*statistics.hessian()),
        compute_(statistics.compute()),
        method_(method),
        rows_(rows),
        moving_(static_cast<size_t>(rows.weights.rows), 1) {}

  absl::Status Run() {
    const int64_t rows = rows_.weights.rows, cols = rows_.weights.cols;
    const int64_t width = std::min(kLargeBlock, cols);
    LWQ_ASSIGN_OR_RETURN(input_, device_->NewInput(rows, cols, compute_));
    LWQ_ASSIGN_OR_RETURN(columns_, device_->NewMatrix(rows, width));
    LWQ_ASSIGN_OR_RETURN(products_, device_->NewMatrix(rows, width));
    for (int64_t first = 0; first < cols; first += kLargeBlock) {
      Matrix errors(rows, std::min(kLargeBlock, cols - first));
      ForEachRow([&](int64_t r) { PutErrors(r, first, errors); });
      LWQ_RETURN_IF_ERROR(SetErrors(first, errors));
    }
    if (!rows_.losses.empty()) LWQ_RETURN_IF_ERROR(AddLosses());
    for (int sweep = 0; sweep < method_.sweeps; ++sweep) {
      std::vector<double> before(rows_.gains.begin(), rows_.gains.end());
      for (int64_t first = 0; first < cols; first += kLargeBlock) {
        LWQ_RETURN_IF_ERROR(SweepLargeBlock(first));
      }
      bool any = false;
      for (size_t r = 0; r < moving_.size(); ++r) {
        moving_[r] = rows_.gains[r] > before[r];
        any = any || moving_[r];
      }
      if (!any) break;
    }
    return absl::OkStatus();
  }

 private:
  // (W - Q) H of a large block's columns, with all errors as they are.
  absl::Status ReadResidual(int64_t first, Matrix& residual) {
    const DeviceView<float> products = products_->view().Cols(0, residual.cols());
    LWQ_RETURN_IF_ERROR(device_->Linear(*input_, h_.ColumnsFrom(first), products));
    return device_->Download(products, residual.view());
  }

  // The sum of errors times their residual, before any of them moves.
  absl::Status AddLosses() {
    for (int64_t first = 0; first < rows_.weights.cols; first += kLargeBlock) {
      const int64_t count = std::min(kLargeBlock, rows_.weights.cols - first);
      Matrix residual(rows_.weights.rows, count), errors(rows_.weights.rows, count);
      LWQ_RETURN_IF_ERROR(ReadResidual(first, residual));
      ForEachRow([&](int64_t r) {
        PutErrors(r, first, errors);
        double loss = 0;
        for (int64_t c = 0; c < count; ++c) loss += double{errors.Row(r)[c]} * residual.Row(r)[c];
        rows_.losses[static_cast<size_t>(r)] += loss;
      });
    }
    return absl::OkStatus();
  }

  absl::Status SweepLargeBlock(int64_t first) {
    const int64_t count = std::min(kLargeBlock, rows_.weights.cols - first);
    Matrix residual(rows_.weights.rows, count), h(count, count);
    LWQ_RETURN_IF_ERROR(ReadResidual(first, residual));
    LWQ_RETURN_IF_ERROR(
        device_->Download(h_.diagonal->view().Rows(first, count).Cols(0, count), h.view()));
    ForEachRow([&](int64_t r) {
      if (moving_[static_cast<size_t>(r)]) {
        rows_.gains[static_cast<size_t>(r)] += MoveRow(r, first, h.view(), residual.Row(r));
      }
      PutErrors(r, first, residual);
    });
    return SetErrors(first, residual);
  }

  double MoveRow(int64_t r, int64_t first, ConstMatrixView h, float* residual) {
    double gain = 0;
    for (int64_t at = 0; at < h.cols; at += type_.block_size) {
      BlockRefinement block(type_, h, at, residual, &BlockAt(r, first + at));
      gain += block.MoveCodes();
      if (method_.refinement) gain += block.MoveScales();
    }
    return gain;
  }

  // What a row's stored values lack, of the columns of the large block at `first`.
  void PutErrors(int64_t r, int64_t first, Matrix& errors) {
    const float* weights = rows_.weights.Row(r) + first;
    float* out = errors.Row(r);
    for (int64_t at = 0; at < errors.cols(); at += type_.block_size) {
      const GgufBlock& block = BlockAt(r, first + at);
      for (int i = 0; i < type_.block_size; ++i) {
        out[at + i] = weights[at + i] - StoredValue(type_, block, i);
      }
    }
  }

  absl::Status SetErrors(int64_t first, const Matrix& errors) {
    const DeviceView<float> columns = columns_->view().Cols(0, errors.cols());
    LWQ_RETURN_IF_ERROR(device_->Upload(errors.view(), columns));
    return device_->SetColumns(columns, first, *input_);
  }

  GgufBlock& BlockAt(int64_t r, int64_t column) {
    const int64_t per_row = rows_.weights.cols / type_.block_size;
    return rows_.blocks[static_cast<size_t>(r * per_row + column / type_.block_size)];
  }

  template <typename Body>
  void ForEachRow(const Body& body) {
    device_->host_threads().ParallelForBlocks(rows_.weights.rows, kRowsPerTask,
                                              [&](int64_t begin, int64_t end) {
                                                for (int64_t r = begin; r < end; ++r) body(r);
                                              });
  }

  Device* const device_;
  const GgufTypeDef& type_;
  const BlockedHessian& h_;
  const ComputeType compute_;
  const BlockMethod method_;
  const BlockRows rows_;
  std::vector<char> moving_;                // rows that the sweep before changed
  std::unique_ptr<PreparedInput> input_;    // [rows, cols]: W - Q
  std::unique_ptr<DeviceMatrix> columns_;   // [rows, kLargeBlock]: some of it, on its way there
  std::unique_ptr<DeviceMatrix> products_;  // the same shape
};

}  // namespace

absl::Status DescendBlocks(Device* device, const GgufTypeDef& type,
                           const InputStatistics& statistics, const BlockMethod& method,
                           const BlockRows& rows) {
  return BlockDescent(device, type, statistics, method, rows).Run();
}

}  // namespace lwq
