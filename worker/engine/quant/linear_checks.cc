#include "worker/engine/quant/linear_checks.h"

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

absl::Status CheckGrid(const GridSpec& grid, int64_t in_features) {
  if (grid.bits < 2 || grid.bits > 8) {
    return Failure(reasons::kBits,
                   absl::StrCat("quantizing to ", grid.bits, " bits: expected 2 to 8 bits"));
  }
  if (grid.group_size < 0 || in_features % grid.GroupSizeFor(in_features) != 0) {
    return Failure(reasons::kGroupSize,
                   absl::StrCat("group_size ", grid.group_size, " does not divide in_features ",
                                in_features, "; choose one that does, or 0 for one group a row"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckQuantizable(Device* device, DeviceView<const float> weight,
                              absl::Span<const GridSpec> grids) {
  if (weight.rows <= 0 || weight.cols <= 0) {
    return Failure(reasons::kShape, absl::StrCat("quantizing an empty weight: [", weight.rows, ", ",
                                                 weight.cols, "]"));
  }
  for (const GridSpec& grid : grids) LWQ_RETURN_IF_ERROR(CheckGrid(grid, weight.cols));
  return device->CheckFinite("quantizing a weight", weight);
}

}  // namespace lwq
