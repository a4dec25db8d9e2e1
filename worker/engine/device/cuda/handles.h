// Owners of what CUDA hands out: streams, events and pinned host memory.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "worker/engine/device/cuda/cuda_status.h"

namespace lwq::cuda {

// Owns a T that `Release` takes back.
template <typename T, cudaError_t (*Release)(T)>
class Owned {
 public:
  Owned() = default;
  explicit Owned(T value) : value_(value) {}
  Owned(Owned&& other) noexcept : value_(std::exchange(other.value_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~Owned() {
    if (value_ != nullptr) (void)Release(value_);
  }
  T get() const { return value_; }

 private:
  T value_ = nullptr;
};

using OwnedStream = Owned<cudaStream_t, &cudaStreamDestroy>;
using OwnedEvent = Owned<cudaEvent_t, &cudaEventDestroy>;
// Host memory that the device can copy from and to while the host goes on.
using PinnedMemory = Owned<void*, &cudaFreeHost>;

inline absl::StatusOr<OwnedStream> NewStream() {
  cudaStream_t stream = nullptr;
  LWQ_RETURN_IF_ERROR(
      StatusOf(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream"));
  return OwnedStream(stream);
}
inline absl::StatusOr<OwnedEvent> NewEvent() {
  cudaEvent_t event = nullptr;
  LWQ_RETURN_IF_ERROR(
      StatusOf(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event"));
  return OwnedEvent(event);
}
inline absl::StatusOr<PinnedMemory> NewPinned(int64_t bytes) {
  void* data = nullptr;
  LWQ_RETURN_IF_ERROR(
      StatusOf(cudaMallocHost(&data, static_cast<size_t>(bytes)), "allocating pinned host memory"));
  return PinnedMemory(data);
}

}  // namespace lwq::cuda
