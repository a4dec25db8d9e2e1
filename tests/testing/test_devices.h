// The devices that tests run on, and how tests reach their memory. A new device is a line here, or
// of a test binary of its own (tests/conformance/cuda_devices.cc): the conformance suite then runs
// on it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/reference/reference_device.h"

namespace lwq::testing {

struct TestDevice {
  const char* name;  // in the names of tests
  std::unique_ptr<Device> (*make)(int threads);
  std::vector<int> thread_counts;  // results must be equal for all
  bool slow;                       // takes small shapes only
};

// A test binary may add some before main.
inline std::vector<TestDevice>& TestDevices() {
  static auto& devices = *new std::vector<TestDevice>{
      {"reference",
       [](int) -> std::unique_ptr<Device> { return std::make_unique<ReferenceDevice>(); },
       {1},
       true},
      // The same in an address space of its own: host and device memory confused is a fault.
      {"offset_reference",
       [](int) -> std::unique_ptr<Device> {
         return std::make_unique<ReferenceDevice>(HostSpace(HostSpace::kFarAway));
       },
       {1},
       true},
      {"cpu",
       [](int threads) -> std::unique_ptr<Device> { return std::make_unique<CpuDevice>(threads); },
       {1, 2, 3},
       false},
  };
  return devices;
}

// For ::testing::ValuesIn and its names.
inline std::vector<const TestDevice*> AllDevices() {
  std::vector<const TestDevice*> all;
  for (const TestDevice& device : TestDevices()) all.push_back(&device);
  return all;
}
inline std::string DeviceName(const ::testing::TestParamInfo<const TestDevice*>& info) {
  return info.param->name;
}

// A case for one device.
class DeviceTest : public ::testing::TestWithParam<const TestDevice*> {
 protected:
  const std::unique_ptr<Device> device_ = GetParam()->make(2);
};

template <typename T>
std::unique_ptr<DeviceBuffer<T>> BufferOn(Device& device, HostView<const T> host) {
  absl::StatusOr<std::unique_ptr<DeviceBuffer<T>>> out = device.NewBuffer<T>(host.rows, host.cols);
  EXPECT_OK(out.status());
  EXPECT_OK(device.Upload(host, (*out)->view()));
  return *std::move(out);
}
inline std::unique_ptr<DeviceMatrix> OnDevice(Device* device, ConstMatrixView host) {
  return BufferOn<float>(*device, host);
}
template <typename T>
std::unique_ptr<DeviceBuffer<T>> VectorOn(Device& device, const std::vector<T>& host) {
  const int64_t size = static_cast<int64_t>(host.size());
  return BufferOn<T>(device, {host.data(), 1, size, size});
}

inline Matrix OnHost(Device& device, DeviceView<const float> view) {
  Matrix out(view.rows, view.cols);
  EXPECT_OK(device.Download(view, out.view()));
  return out;
}
// Row after row.
template <typename T>
std::vector<std::remove_const_t<T>> ElementsOf(Device& device, DeviceView<T> view) {
  using Element = std::remove_const_t<T>;
  std::vector<Element> out(static_cast<size_t>(view.rows * view.cols));
  EXPECT_OK(device.Download(view, HostView<Element>{out.data(), view.rows, view.cols, view.cols}));
  return out;
}
template <typename T>
std::vector<std::remove_const_t<T>> ElementsOf(Device& device, DeviceSpan<T> span) {
  return ElementsOf(device, DeviceView<T>{span.data, 1, span.size, span.size});
}

}  // namespace lwq::testing
