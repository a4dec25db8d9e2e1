// Device memory that is host memory under other addresses: what the CPU and the reference device
// hand out. An address of the device is the host's plus a distance. With a distance of zero they
// are the same; kFarAway makes every one of them an address where nothing is, so that a
// host loop over device memory faults, and so does a device operation on host memory.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/device/device.h"

namespace lwq {

class HostSpace {
 public:
  // Beyond all that a process gets without asking: 48 bits on x86-64 and on 64-bit ARM, which both
  // look at this bit (ARM ignores higher ones).
  static constexpr uintptr_t kFarAway = uintptr_t{1} << 55;

  explicit HostSpace(uintptr_t distance) : distance_(distance) {}

  // RESOURCE_EXHAUSTED when there is no memory, INVALID_ARGUMENT for sizes below 0 or past 2^40.
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t rows, int64_t cols,
                                                         int64_t element_bytes) const;

  // The host's side of device memory; null stays null.
  template <typename T>
  T* Host(DevicePtr<T> device) const {
    if (!device) return nullptr;
    return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(device.address()) - distance_);
  }
  template <typename T>
  HostView<T> Host(DeviceView<T> device) const {
    return {Host(device.data), device.rows, device.cols, device.stride};
  }
  template <typename T>
  absl::Span<T> Host(DeviceSpan<T> device) const {
    return {Host(device.data), static_cast<size_t>(device.size)};
  }

 private:
  const uintptr_t distance_;
};

// GptqColumns and RefinementBlock as the host sees them.
struct HostGptqColumns {
  HostGptqColumns(const HostSpace& space, const GptqColumns& block);
  MatrixView w;
  ConstMatrixView u;
  GridSpec grid;
  ConstMatrixView scales, zeros;
  absl::Span<const int32_t> columns;
  int64_t in_features;
  HostView<uint8_t> codes;
  MatrixView error;
  absl::Span<double> loss;
};

struct HostRefinementBlock {
  HostRefinementBlock(const HostSpace& space, const RefinementBlock& block);
  ConstMatrixView residual, h;
  GridSpec grid;
  bool refit_scales;
  MatrixView scales;
  ConstMatrixView zeros;
  HostView<uint8_t> codes;
  MatrixView change;
  absl::Span<double> gain;
};

}  // namespace lwq
