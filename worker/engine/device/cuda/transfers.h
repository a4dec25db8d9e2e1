// Between host and device. Uploads go through a ring of slots, each of pinned host memory and
// memory on the device: a stream of its own brings a slot over while the compute stream works,
// which then only moves it to its place. So the next layer arrives while a layer runs, and the
// caller's memory is free as soon as the call returns.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/device/cuda/device_pool.h"
#include "worker/engine/device/cuda/handles.h"
#include "worker/engine/device/cuda/view.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq::cuda {

class Transfers {
 public:
  static absl::StatusOr<std::unique_ptr<Transfers>> Create(std::shared_ptr<DevicePool> pool,
                                                           int num_slots, int64_t slot_bytes);
  ~Transfers();

  // Both sides have one shape.
  absl::Status Upload(HostView<const uint8_t> host, View<uint8_t> device);
  // Waits for all operations before.
  absl::Status Download(View<const uint8_t> device, HostView<uint8_t> host);

 private:
  struct Slot {
    PinnedMemory host;
    std::unique_ptr<DeviceMemory> device;
    OwnedEvent arrived;  // on the device: the host's side is free
    OwnedEvent emptied;  // moved to its place: the device's side is free
  };
  Transfers(std::shared_ptr<DevicePool> pool, int64_t slot_bytes)
      : pool_(std::move(pool)), slot_bytes_(slot_bytes) {}
  absl::Status UploadPiece(HostView<const uint8_t> host, View<uint8_t> device);
  absl::Status DownloadPiece(View<const uint8_t> device, HostView<uint8_t> host);

  const std::shared_ptr<DevicePool> pool_;
  const int64_t slot_bytes_;
  OwnedStream copies_;
  std::vector<Slot> slots_;
  size_t next_slot_ = 0;
  PinnedMemory download_;
};

}  // namespace lwq::cuda
