// Findings that the device makes while the host has gone on: each check has a number on the device
// that says where the first fault was, read when somebody waits for the device anyway.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/device/cuda/device_pool.h"
#include "worker/engine/device/cuda/handles.h"

namespace lwq::cuda {

class DeferredChecks {
 public:
  static absl::StatusOr<std::unique_ptr<DeferredChecks>> Create(std::shared_ptr<DevicePool> pool);

  // Where a check on the device leaves what it finds: the smallest place of a fault, and perhaps
  // the value there.
  struct Place {
    unsigned long long* first;
    float* value;
  };
  // What is wrong when the place is `first`.
  using Describe = std::function<absl::Status(int64_t first, float value)>;
  // May wait for the device when too many are open, and then report one of those.
  absl::StatusOr<Place> Add(Describe describe);

  // Waits for the compute stream; the first fault of those added since the last.
  absl::Status Collect();
  bool any() const { return !open_.empty(); }

 private:
  static constexpr int kPlaces = 64;
  struct Findings {
    unsigned long long first[kPlaces];
    float value[kPlaces];
  };
  explicit DeferredChecks(std::shared_ptr<DevicePool> pool) : pool_(std::move(pool)) {}
  absl::Status Reset();

  const std::shared_ptr<DevicePool> pool_;
  std::unique_ptr<DeviceMemory> on_device_;
  PinnedMemory on_host_;
  std::vector<Describe> open_;
};

}  // namespace lwq::cuda
