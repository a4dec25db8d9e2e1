// The residual (W - Q) H is one product at the start; after each block of columns, one product more
// brings the columns behind it up to date. Both are the cost, about three times that of GPTQ's own
// updates.
#include "worker/engine/quant/refinement.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kBlock = 128;

// Columns handled together: whole groups as far as they fit, else part of one.
int64_t BlockSize(int64_t group_size) {
  return group_size >= kBlock ? kBlock : kBlock / group_size * group_size;
}

absl::StatusOr<std::unique_ptr<DeviceMatrix>> OnDevice(Device* device, const Matrix& host) {
  LWQ_ASSIGN_OR_RETURN(auto out, device->NewMatrix(host.rows(), host.cols()));
  LWQ_RETURN_IF_ERROR(device->Upload(host.view(), out->view()));
  return out;
}

}  // namespace

absl::Status Refine(Device* device, ConstMatrixView weight, const InputStatistics& statistics,
                    QuantizedLinear* quantized) {
  const int64_t rows = weight.rows, cols = weight.cols;
  const ConstMatrixView h = statistics.hessian()->view();
  const GridSpec& grid = quantized->grid;
  const int64_t group_size = grid.GroupSizeFor(cols);
  LWQ_ASSIGN_OR_RETURN(auto scales, OnDevice(device, quantized->scales));
  std::unique_ptr<DeviceMatrix> zeros;
  if (!grid.symmetric) {
    LWQ_ASSIGN_OR_RETURN(zeros, OnDevice(device, quantized->zeros));
  }
  const ConstMatrixView zeros_view = zeros == nullptr ? ConstMatrixView() : zeros->view();

  LWQ_ASSIGN_OR_RETURN(auto residual, device->NewMatrix(rows, cols));
  {
    LWQ_ASSIGN_OR_RETURN(auto error, device->NewMatrix(rows, cols));  // Q - W
    LWQ_RETURN_IF_ERROR(device->Dequantize(quantized->codes.data(), grid, scales->view(),
                                           zeros_view, error->view()));
    LWQ_RETURN_IF_ERROR(device->Subtract(weight, error->view()));
    LWQ_RETURN_IF_ERROR(device->FillZero(residual->view()));
    LWQ_RETURN_IF_ERROR(device->SubtractProduct(error->view(), h, residual->view()));
  }

  const int64_t block_size = BlockSize(group_size);
  LWQ_ASSIGN_OR_RETURN(auto change, device->NewMatrix(rows, std::min(block_size, cols)));
  std::vector<double> gain(rows);
  int64_t count = 0;
  for (int64_t first = 0; first < cols; first += count) {
    // A block ends where its group does.
    const int64_t group_end = first / group_size * group_size + group_size;
    count =
        std::min({block_size, cols - first, group_size > kBlock ? group_end - first : block_size});
    const int64_t first_group = first / group_size;
    const int64_t num_groups = std::max<int64_t>(1, count / group_size);
    RefinementBlock block;
    block.residual = residual->view().Cols(first, count);
    block.h = h.Rows(first, count).Cols(first, count);
    block.grid = grid;
    block.grid.group_size = std::min(group_size, count);
    block.refit_scales = grid.search && group_size <= count;
    block.scales = scales->view().Cols(first_group, num_groups);
    if (zeros != nullptr) block.zeros = zeros_view.Cols(first_group, num_groups);
    block.codes = quantized->codes.data() + first;
    block.code_stride = cols;
    block.change = change->view().Cols(0, count);
    LWQ_RETURN_IF_ERROR(device->RefineBlock(block, absl::MakeSpan(gain)));
    for (const double g : gain) quantized->record.refinement_gain += g;
    const int64_t next = first + count;
    if (next == cols) break;
    LWQ_RETURN_IF_ERROR(device->SubtractProduct(block.change,
                                                h.Rows(first, count).Cols(next, cols - next),
                                                residual->view().Cols(next, cols - next)));
  }
  quantized->record.calibrated_error -= quantized->record.refinement_gain;
  return device->Download(scales->view(), quantized->scales.view());
}

}  // namespace lwq
