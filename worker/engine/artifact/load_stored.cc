#include "worker/engine/artifact/load_stored.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/format/grid.h"

namespace lwq {
namespace {

constexpr int64_t kElementsAtOnce = int64_t{1} << 20;

absl::Status LoadGrid(absl::string_view module, const StoredLinear& stored, Device* device,
                      DeviceView<float> out) {
  const GridFormat& format = *stored.format->grid();
  LWQ_ASSIGN_OR_RETURN(const GridCodes host, format.Decode(module, stored));
  LWQ_ASSIGN_OR_RETURN(const auto codes, device->NewBuffer<uint8_t>(out.rows, out.cols));
  LWQ_RETURN_IF_ERROR(device->Upload(absl::MakeConstSpan(host.codes), codes->span()));
  LWQ_ASSIGN_OR_RETURN(const auto scales,
                       device->NewMatrix(host.scales.rows(), host.scales.cols()));
  LWQ_RETURN_IF_ERROR(device->Upload(host.scales.view(), scales->view()));
  LWQ_ASSIGN_OR_RETURN(const auto zeros, device->NewMatrix(host.zeros.rows(), host.zeros.cols()));
  LWQ_RETURN_IF_ERROR(device->Upload(host.zeros.view(), zeros->view()));
  const GridSpec grid{
      .bits = format.bits(), .group_size = format.group_size(), .symmetric = format.symmetric()};
  return device->Dequantize(codes->view(), grid, scales->view(), zeros->view(), out);
}

absl::Status LoadByRows(absl::string_view module, const StoredLinear& stored, int64_t first_row,
                        Device* device, DeviceView<float> out) {
  const int64_t at_once = std::max<int64_t>(1, kElementsAtOnce / std::max<int64_t>(1, out.cols));
  Matrix host(std::min(at_once, out.rows), out.cols);
  for (int64_t done = 0; done < out.rows; done += host.rows()) {
    const MatrixView rows = host.view().Rows(0, std::min(host.rows(), out.rows - done));
    LWQ_RETURN_IF_ERROR(stored.format->Dequantize(module, stored.parts, first_row + done, rows));
    LWQ_RETURN_IF_ERROR(device->Upload(rows, out.Rows(done, rows.rows)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStoredRows(absl::string_view module, const StoredLinear& stored,
                             int64_t first_row, int64_t rows, int64_t cols) {
  if (first_row >= 0 && rows >= 0 && first_row <= stored.out_features - rows &&
      cols == stored.in_features) {
    return absl::OkStatus();
  }
  return InvalidFailure(
      "CONFIG_MISMATCH",
      absl::StrCat(module, " is stored as [", stored.out_features, ", ", stored.in_features,
                   "], rows ", first_row, " to ", first_row + rows, " of ", cols, " are needed"));
}

absl::Status LoadStoredRows(absl::string_view module, const StoredLinear& stored, int64_t first_row,
                            Device* device, DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckStoredRows(module, stored, first_row, out.rows, out.cols));
  const bool whole = out.rows == stored.out_features;
  return whole && stored.format->grid() != nullptr
             ? LoadGrid(module, stored, device, out)
             : LoadByRows(module, stored, first_row, device, out);
}

absl::Status LoadStored(absl::string_view module, const StoredLinear& stored, Device* device,
                        DeviceView<float> out) {
  if (out.rows != stored.out_features) {
    return InvalidFailure(
        "CONFIG_MISMATCH",
        absl::StrCat(module, " is stored as [", stored.out_features, ", ", stored.in_features,
                     "], [", out.rows, ", ", out.cols, "] is needed"));
  }
  return LoadStoredRows(module, stored, 0, device, out);
}

}  // namespace lwq
