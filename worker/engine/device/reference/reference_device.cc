#include "worker/engine/device/reference/reference_device.h"

#include <algorithm>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/host_matrix.h"

namespace lwq {

std::string ReferenceDevice::Description() const { return "scalar, sums in F64, one thread"; }
std::string ReferenceDevice::NumericsClass() const { return "reference-1"; }
bool ReferenceDevice::Supports(ComputeType) const { return true; }

absl::StatusOr<std::unique_ptr<DeviceMatrix>> ReferenceDevice::NewMatrix(int64_t rows,
                                                                         int64_t cols) {
  return HostMatrix::Create(rows, cols);
}
absl::Status ReferenceDevice::Upload(ConstMatrixView host, MatrixView device) {
  return CopyHostMatrix(host, device);
}
absl::Status ReferenceDevice::Download(ConstMatrixView device, MatrixView host) {
  return CopyHostMatrix(device, host);
}
absl::Status ReferenceDevice::FillZero(MatrixView m) {
  for (int64_t r = 0; r < m.rows; ++r) std::fill_n(m.Row(r), m.cols, 0.0f);
  return absl::OkStatus();
}
absl::Status ReferenceDevice::Copy(ConstMatrixView from, MatrixView to) {
  return CopyHostMatrix(from, to);
}
absl::Status ReferenceDevice::GatherColumns(ConstMatrixView from, absl::Span<const int32_t> columns,
                                            MatrixView to) {
  LWQ_RETURN_IF_ERROR(CheckGather(from, columns, to));
  for (int64_t r = 0; r < to.rows; ++r) {
    for (int64_t j = 0; j < to.cols; ++j) to.Row(r)[j] = from.Row(r)[columns[j]];
  }
  return absl::OkStatus();
}

}  // namespace lwq
