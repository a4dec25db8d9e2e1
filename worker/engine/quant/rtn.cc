// Round to nearest (methods: Quanto RTN), symmetric or affine with integer zeros, by default with a
// search for each group's scale. It ignores calibration, so its results depend on the weights
// alone.
#include "worker/engine/quant/rtn.h"

#include <memory>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "worker/engine/quant/linear_checks.h"

namespace lwq {

extern const QuantizerDef quantizer_rtn;

absl::StatusOr<QuantizedLinear> RoundToNearest(Device* device, ConstMatrixView weight,
                                               const GridSpec& grid, const float* column_weight) {
  const int64_t num_groups = grid.NumGroups(weight.cols);
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<DeviceMatrix> scales,
                       device->NewMatrix(weight.rows, num_groups));
  std::unique_ptr<DeviceMatrix> zeros;
  if (!grid.symmetric) {
    LWQ_ASSIGN_OR_RETURN(zeros, device->NewMatrix(weight.rows, num_groups));
  }
  const MatrixView zeros_view = zeros == nullptr ? MatrixView() : zeros->view();
  LWQ_RETURN_IF_ERROR(device->FitGrid(weight, grid, column_weight, scales->view(), zeros_view));

  QuantizedLinear out;
  out.out_features = weight.rows;
  out.in_features = weight.cols;
  out.grid = grid;
  out.codes.resize(weight.rows * weight.cols);
  LWQ_RETURN_IF_ERROR(
      device->RoundToGrid(weight, grid, scales->view(), zeros_view, out.codes.data()));
  out.scales = Matrix(weight.rows, num_groups);
  LWQ_RETURN_IF_ERROR(device->Download(scales->view(), out.scales.view()));
  if (zeros != nullptr) {
    out.zeros = Matrix(weight.rows, num_groups);
    LWQ_RETURN_IF_ERROR(device->Download(zeros->view(), out.zeros.view()));
  }
  out.record.method = std::string(quantizer_rtn.name);
  LWQ_ASSIGN_OR_RETURN(out.record.relative_weight_error, RelativeWeightError(device, weight, out));
  return out;
}

namespace {

class RtnQuantizer : public Quantizer {
 public:
  absl::StatusOr<std::vector<QuantizedLinear>> Quantize(
      Device* device, ConstMatrixView weight, const InputStatistics*,
      absl::Span<const GridSpec> grids) const override {
    LWQ_RETURN_IF_ERROR(CheckQuantizable(device, weight, grids));
    std::vector<QuantizedLinear> out;
    for (const GridSpec& grid : grids) {
      LWQ_ASSIGN_OR_RETURN(QuantizedLinear quantized,
                           RoundToNearest(device, weight, grid, /*column_weight=*/nullptr));
      out.push_back(std::move(quantized));
    }
    return out;
  }
};

std::unique_ptr<Quantizer> MakeRtn() { return std::make_unique<RtnQuantizer>(); }

}  // namespace

constinit const QuantizerDef quantizer_rtn = {
    .name = "rtn",
    .help = "round to nearest with a scale search; needs no calibration",
    .needs_calibration = false,
    .make = &MakeRtn,
};

}  // namespace lwq
