// The device's views as kernels take them.
#pragma once

#include "worker/engine/device/cuda/view.h"
#include "worker/engine/device/device.h"

namespace lwq::cuda {

template <typename T>
View<T> ViewOf(DeviceView<T> v) {
  return {v.data.address(), v.rows, v.cols, v.stride};
}
template <typename T>
Span<T> SpanOf(DeviceSpan<T> s) {
  return {s.data.address(), s.size};
}
// 16-bit floats as their bits.
template <typename Half>
View<const uint16_t> BitsOf(DeviceView<const Half> v) {
  return {reinterpret_cast<const uint16_t*>(v.data.address()), v.rows, v.cols, v.stride};
}

}  // namespace lwq::cuda
