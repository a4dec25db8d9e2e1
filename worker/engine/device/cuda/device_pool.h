// The device's memory, handed out in the order of the compute stream: what is freed serves the next
// that asks, without waiting for the device. A hard limit, and what is in use.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/device/device_memory.h"

namespace lwq::cuda {

// Shared with the memory that it handed out, which may outlive the device.
class DevicePool : public std::enable_shared_from_this<DevicePool> {
 public:
  // `limit_bytes` 0: nine tenths of what is free now.
  static absl::StatusOr<std::shared_ptr<DevicePool>> Create(int ordinal, int64_t limit_bytes);
  ~DevicePool();
  DevicePool(const DevicePool&) = delete;
  DevicePool& operator=(const DevicePool&) = delete;

  // RESOURCE_EXHAUSTED that names the bytes where there is no memory, INVALID_ARGUMENT for sizes
  // below 0 or past 2^40 elements.
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t rows, int64_t cols,
                                                         int64_t element_bytes);

  // Waits for what is under way and gives the driver what was freed: libraries take memory of it
  // too.
  void Trim();

  // All operations run on it. Its device becomes the calling thread's current one, which is what
  // CUDA starts work on.
  cudaStream_t stream() const {
    (void)cudaSetDevice(ordinal_);
    return stream_;
  }
  int64_t used_bytes() const { return used_bytes_; }
  int64_t limit_bytes() const { return limit_bytes_; }

 private:
  class Block;
  DevicePool(int ordinal, int64_t limit_bytes) : ordinal_(ordinal), limit_bytes_(limit_bytes) {}
  absl::Status Open();
  cudaError_t Take(void** data, int64_t bytes);

  const int ordinal_;
  const int64_t limit_bytes_;
  std::atomic<int64_t> used_bytes_{0};
  cudaStream_t stream_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
};

}  // namespace lwq::cuda
