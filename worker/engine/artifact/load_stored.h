// Stored linears into a device's memory.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/engine/device/device.h"
#include "worker/engine/format/weight_format.h"

namespace lwq {

// Dequantizes a stored linear into `out` [out_features, in_features], some rows at a time. What is
// stored crosses as it is stored, packed codes, GGUF's blocks, 8- and 16-bit floats, and becomes
// weights on the device. Errors as DequantizeLinear's.
absl::Status LoadStored(absl::string_view module, const StoredLinear& stored, Device* device,
                        DeviceView<float> out);

// The same for rows [first_row, first_row + out.rows).
absl::Status LoadStoredRows(absl::string_view module, const StoredLinear& stored, int64_t first_row,
                            Device* device, DeviceView<float> out);

// INVALID_ARGUMENT "CONFIG_MISMATCH" unless the linear has those rows, of `cols` weights.
absl::Status CheckStoredRows(absl::string_view module, const StoredLinear& stored,
                             int64_t first_row, int64_t rows, int64_t cols);

}  // namespace lwq
