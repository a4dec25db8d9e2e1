// Round to nearest (methods: Quanto RTN), symmetric or affine with integer zeros, by default with a
// search for each group's scale. It ignores calibration, so its results depend on the weights
// alone.
#include "worker/engine/quant/rtn.h"

#include <memory>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "worker/engine/quant/block_rounding.h"
#include "worker/engine/quant/linear_checks.h"

namespace lwq {

extern const QuantizerDef quantizer_rtn;

absl::StatusOr<DeviceLinear> RoundToNearest(Device* device, DeviceView<const float> weight,
                                            const GridSpec& grid,
                                            DeviceSpan<const float> column_weight) {
  LWQ_ASSIGN_OR_RETURN(DeviceLinear out,
                       DeviceLinear::Create(device, weight.rows, weight.cols, grid));
  LWQ_RETURN_IF_ERROR(
      device->FitGrid(weight, grid, column_weight, out.scales->view(), out.zeros_view()));
  LWQ_RETURN_IF_ERROR(
      device->RoundToGrid(weight, grid, out.scales->view(), out.zeros_view(), out.codes->view()));
  return out;
}

namespace {

class RtnQuantizer : public Quantizer {
 public:
  absl::StatusOr<std::vector<QuantizedLinear>> Quantize(
      Device* device, DeviceView<const float> weight, const InputStatistics*,
      absl::Span<const GridSpec> grids) const override {
    LWQ_RETURN_IF_ERROR(CheckQuantizable(device, weight, grids));
    std::vector<QuantizedLinear> out;
    for (const GridSpec& grid : grids) {
      LWQ_ASSIGN_OR_RETURN(const DeviceLinear linear,
                           RoundToNearest(device, weight, grid, /*column_weight=*/{}));
      LWQ_ASSIGN_OR_RETURN(QuantizedLinear quantized, ReadBack(device, weight, linear));
      quantized.record.method = std::string(kRoundToNearest);
      out.push_back(std::move(quantized));
    }
    return out;
  }

  absl::StatusOr<std::vector<BlockLinear>> QuantizeToBlocks(
      Device* device, DeviceView<const float> weight, const InputStatistics*,
      absl::Span<const GgufTypeDef* const> types, GgufFit fit) const override {
    LWQ_RETURN_IF_ERROR(CheckQuantizable(device, weight, {}));
    std::vector<BlockLinear> out;
    for (const GgufTypeDef* type : types) {
      LWQ_ASSIGN_OR_RETURN(BlockLinear blocks,
                           RoundToBlocks(device, weight, *type, fit, /*column_weight=*/{}));
      blocks.record.method = std::string(kRoundToNearest);
      out.push_back(std::move(blocks));
    }
    return out;
  }
};

constexpr OptionDef kOptions[] = {kScaleSearch};

std::unique_ptr<Quantizer> MakeRtn(const OptionValues&) { return std::make_unique<RtnQuantizer>(); }

}  // namespace

constinit const QuantizerDef quantizer_rtn = {
    .name = kRoundToNearest,
    .help = "round to nearest with a scale search; needs no calibration",
    .evidence = {},
    .options = kOptions,
    .make = &MakeRtn,
};

}  // namespace lwq
