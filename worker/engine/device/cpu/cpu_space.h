// The CPU's device memory is host memory under the host's own addresses. Private to device/cpu.
#pragma once

#include "worker/engine/device/host_space.h"

namespace lwq {

// What a pointer, span or view of device memory is to the host.
template <typename Device>
auto Host(Device device) {
  return HostSpace(0).Host(device);
}

// Row r of a view, for the host.
template <typename T>
T* Row(DeviceView<T> view, int64_t r) {
  return Host(view.data) + r * view.stride;
}

}  // namespace lwq
