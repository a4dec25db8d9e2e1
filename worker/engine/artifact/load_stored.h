// Stored linears into a device's memory.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/engine/device/device.h"
#include "worker/engine/format/weight_format.h"

namespace lwq {

// Dequantizes a stored linear into `out` [out_features, in_features]. Integers on a grid cross as
// codes, a byte each, and become weights on the device; weights of other formats cross as F32, some
// rows at a time. Errors as DequantizeLinear's.
absl::Status LoadStored(absl::string_view module, const StoredLinear& stored, Device* device,
                        DeviceView<float> out);

}  // namespace lwq
