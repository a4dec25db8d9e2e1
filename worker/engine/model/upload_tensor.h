// Stored tensors into a device's memory.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/engine/device/device.h"
#include "worker/engine/tensor/tensor_view.h"

namespace lwq {

// Fills `out` with an F16, BF16 or F32 tensor of shape [rows, cols] or [n] (as one row): what is
// stored crosses to the device, some rows at a time, and is widened there. INVALID_ARGUMENT
// "DTYPE_UNSUPPORTED", "CONFIG_MISMATCH" for another shape, and "NON_FINITE_WEIGHTS", at the latest
// from the device's next answer.
absl::Status UploadTensor(Device* device, absl::string_view name, const TensorView& tensor,
                          DeviceView<float> out);

}  // namespace lwq
