// How fast a device is, so that a server can tell how long work takes before any of it was done.
#pragma once

#include "absl/status/statusor.h"
#include "worker/engine/device/device.h"

namespace lwq {

// Multiplications with their additions in a second, of large F32 products as a decoder's layers
// make them. Takes some tenths of a second, however slow the device is; so what it says is rough.
absl::StatusOr<double> MeasureOperationsPerSecond(Device* device);

}  // namespace lwq
