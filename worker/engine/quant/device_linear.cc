#include "worker/engine/quant/device_linear.h"

#include <numeric>
#include <utility>
#include <vector>

#include "base/status_macros.h"

namespace lwq {
namespace {

// Row after row, so that the sum does not depend on the device.
absl::StatusOr<double> SumOf(Device* device, const DeviceBuffer<double>& rows) {
  std::vector<double> host(static_cast<size_t>(rows.span().size));
  LWQ_RETURN_IF_ERROR(device->Download(rows.span(), absl::MakeSpan(host)));
  return std::accumulate(host.begin(), host.end(), 0.0);
}

}  // namespace

absl::StatusOr<DeviceLinear> DeviceLinear::Create(Device* device, int64_t rows, int64_t cols,
                                                  const GridSpec& grid) {
  DeviceLinear linear;
  linear.grid = grid;
  LWQ_ASSIGN_OR_RETURN(linear.codes, device->NewBuffer<uint8_t>(rows, cols));
  LWQ_ASSIGN_OR_RETURN(linear.scales, device->NewMatrix(rows, grid.NumGroups(cols)));
  if (!grid.symmetric) {
    LWQ_ASSIGN_OR_RETURN(linear.zeros, device->NewMatrix(rows, grid.NumGroups(cols)));
  }
  return linear;
}

absl::StatusOr<QuantizedLinear> ReadBack(Device* device, DeviceView<const float> weight,
                                         const DeviceLinear& linear) {
  LWQ_ASSIGN_OR_RETURN(const auto error, device->NewBuffer<double>(1, weight.rows));
  LWQ_ASSIGN_OR_RETURN(const auto square, device->NewBuffer<double>(1, weight.rows));
  LWQ_RETURN_IF_ERROR(device->GridError(weight, linear.codes->view(), linear.grid,
                                        linear.scales->view(), linear.zeros_view(), error->span(),
                                        square->span()));
  QuantizedLinear out;
  out.out_features = weight.rows;
  out.in_features = weight.cols;
  out.grid = linear.grid;
  out.codes.resize(static_cast<size_t>(weight.rows * weight.cols));
  LWQ_RETURN_IF_ERROR(device->Download(linear.codes->span(), absl::MakeSpan(out.codes)));
  const int64_t num_groups = linear.grid.NumGroups(weight.cols);
  out.scales = Matrix(weight.rows, num_groups);
  LWQ_RETURN_IF_ERROR(device->Download(linear.scales->view(), out.scales.view()));
  if (linear.zeros != nullptr) {
    out.zeros = Matrix(weight.rows, num_groups);
    LWQ_RETURN_IF_ERROR(device->Download(linear.zeros->view(), out.zeros.view()));
  }
  LWQ_ASSIGN_OR_RETURN(const double errors, SumOf(device, *error));
  LWQ_ASSIGN_OR_RETURN(const double squares, SumOf(device, *square));
  out.record.relative_weight_error = squares > 0 ? errors / squares : 0.0;
  out.record.square = squares;
  if (linear.loss != nullptr) {
    LWQ_ASSIGN_OR_RETURN(out.record.calibrated_error, SumOf(device, *linear.loss));
  }
  if (linear.gain != nullptr) {
    LWQ_ASSIGN_OR_RETURN(out.record.refinement_gain, SumOf(device, *linear.gain));
    out.record.calibrated_error -= out.record.refinement_gain;
  }
  return out;
}

}  // namespace lwq
