#include "worker/engine/device/device.h"

#include "absl/strings/str_cat.h"

namespace lwq {

absl::string_view NameOf(ComputeType type) { return type == ComputeType::kBF16 ? "bf16" : "f32"; }

absl::Status Device::SameShape(absl::string_view what, int64_t from_rows, int64_t from_cols,
                               int64_t to_rows, int64_t to_cols) {
  if (from_rows == to_rows && from_cols == to_cols) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " of [", from_rows, ", ", from_cols,
                                                 "] to [", to_rows, ", ", to_cols, "]"));
}

namespace {

absl::Status NoExperts(absl::string_view device) {
  return absl::UnimplementedError(
      absl::StrCat("device ", device, " does not do mixtures of experts"));
}

}  // namespace

absl::Status Device::ChooseExperts(DeviceView<const float>, bool, DeviceView<int32_t>,
                                   DeviceView<float>) {
  return NoExperts(name());
}
absl::Status Device::GatherRows(DeviceView<const float>, DeviceSpan<const int32_t>,
                                DeviceView<float>) {
  return NoExperts(name());
}
absl::Status Device::ScatterAddRows(DeviceView<const float>, DeviceSpan<const int32_t>,
                                    DeviceSpan<const float>, DeviceView<float>) {
  return NoExperts(name());
}
absl::Status Device::SigmoidRows(DeviceSpan<const float>, DeviceView<float>) {
  return NoExperts(name());
}

}  // namespace lwq
