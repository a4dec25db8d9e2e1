#include "worker/engine/device/reference/reference_device.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"

namespace lwq {
namespace {

absl::Status CopyOnHost(HostView<const uint8_t> from, HostView<uint8_t> to) {
  for (int64_t r = 0; r < from.rows; ++r) std::copy_n(from.Row(r), from.cols, to.Row(r));
  return absl::OkStatus();
}

template <typename T>
absl::Status Gather(HostView<const T> from, absl::Span<const int32_t> columns, HostView<T> to) {
  LWQ_RETURN_IF_ERROR(CheckGather<T>(from, columns, to));
  for (int64_t r = 0; r < to.rows; ++r) {
    for (int64_t j = 0; j < to.cols; ++j) to.Row(r)[j] = from.Row(r)[columns[j]];
  }
  return absl::OkStatus();
}

template <typename T, typename ToFloat>
absl::Status WidenOnHost(HostView<const T> from, ToFloat to_float, MatrixView to) {
  LWQ_RETURN_IF_ERROR(CheckShape("what is widened", from, to.rows, to.cols));
  for (int64_t r = 0; r < to.rows; ++r) {
    for (int64_t c = 0; c < to.cols; ++c) to.Row(r)[c] = to_float(from.Row(r)[c].bits);
  }
  return absl::OkStatus();
}

}  // namespace

std::string ReferenceDevice::Description() const { return "scalar, sums in F64, one thread"; }
std::string ReferenceDevice::NumericsClass() const { return "reference-1"; }
bool ReferenceDevice::Supports(ComputeType) const { return true; }

absl::StatusOr<std::unique_ptr<DeviceMemory>> ReferenceDevice::Allocate(int64_t rows, int64_t cols,
                                                                        int64_t element_bytes) {
  return space_.Allocate(rows, cols, element_bytes);
}
absl::Status ReferenceDevice::UploadBytes(HostView<const uint8_t> host,
                                          DeviceView<uint8_t> device) {
  return CopyOnHost(host, space_.Host(device));
}
absl::Status ReferenceDevice::DownloadBytes(DeviceView<const uint8_t> device,
                                            HostView<uint8_t> host) {
  return CopyOnHost(space_.Host(device), host);
}
absl::Status ReferenceDevice::CopyBytes(DeviceView<const uint8_t> from, DeviceView<uint8_t> to) {
  return CopyOnHost(space_.Host(from), space_.Host(to));
}
absl::Status ReferenceDevice::ZeroBytes(DeviceView<uint8_t> m) {
  for (int64_t r = 0; r < m.rows; ++r) std::fill_n(Row(m, r), m.cols, uint8_t{0});
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Widen(DeviceView<const BF16> from, DeviceView<float> to) {
  return WidenOnHost(space_.Host(from), &BF16ToFloat, space_.Host(to));
}
absl::Status ReferenceDevice::Widen(DeviceView<const F16> from, DeviceView<float> to) {
  return WidenOnHost(space_.Host(from), &F16ToFloat, space_.Host(to));
}

absl::Status ReferenceDevice::GatherColumns(DeviceView<const float> from,
                                            DeviceSpan<const int32_t> columns,
                                            DeviceView<float> to) {
  return Gather(space_.Host(from), space_.Host(columns), space_.Host(to));
}
absl::Status ReferenceDevice::GatherColumns(DeviceView<const uint8_t> from,
                                            DeviceSpan<const int32_t> columns,
                                            DeviceView<uint8_t> to) {
  return Gather(space_.Host(from), space_.Host(columns), space_.Host(to));
}

absl::Status ReferenceDevice::CheckFinite(absl::string_view what, DeviceView<const float> x) {
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) {
      const float value = Row(x, r)[c];
      if (!std::isfinite(value)) return NotFinite(what, r, c, value);
    }
  }
  return absl::OkStatus();
}

}  // namespace lwq
