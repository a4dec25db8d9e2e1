// The seam between the choice of a device and CUDA: the build links cuda_device.cc with what it
// stands on, or cuda_unavailable.cc.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "worker/engine/device/device.h"

namespace lwq {

// The GPU of that number as CUDA counts; `host_threads` for loops on the host. DEVICE_UNAVAILABLE
// where the build has no CUDA or the GPU is too old, DEVICE_MISSING where the machine has none such.
absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(int ordinal, int host_threads);

}  // namespace lwq
