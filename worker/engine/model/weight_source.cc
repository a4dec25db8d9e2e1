// What a WeightSource does that knows no better way onto a device.
#include "worker/engine/model/weight_source.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kElementsAtOnce = int64_t{1} << 20;

}  // namespace

absl::Status WeightSource::LoadLinear(absl::string_view module, Device* device,
                                      DeviceView<float> out) const {
  Matrix host(out.rows, out.cols);
  if (host.data() == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", module));
  }
  LWQ_RETURN_IF_ERROR(ReadLinear(module, host.view()));
  return device->Upload(host.view(), out);
}

absl::Status WeightSource::LoadDense(absl::string_view tensor, int64_t first_row, Device* device,
                                     DeviceView<float> out) const {
  const int64_t at_once = std::max<int64_t>(1, kElementsAtOnce / std::max<int64_t>(1, out.cols));
  Matrix host(std::min(at_once, out.rows), out.cols);
  for (int64_t done = 0; done < out.rows; done += host.rows()) {
    const MatrixView rows = host.view().Rows(0, std::min(host.rows(), out.rows - done));
    LWQ_RETURN_IF_ERROR(ReadDense(tensor, first_row + done, rows));
    LWQ_RETURN_IF_ERROR(device->Upload(rows, out.Rows(done, rows.rows)));
  }
  return absl::OkStatus();
}

}  // namespace lwq
