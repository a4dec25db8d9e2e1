// Where hidden states [rows, cols] are kept between layers, so that a decoder need not know: in
// host memory, a chunk of which crosses to the device and back for each layer, or in the device's
// own, where nothing crosses. Which, is for who has the states and knows how many there are.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/device/device.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq {

// Not thread-safe.
class StateStore {
 public:
  virtual ~StateStore() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
  // Fills `out` [any, cols] with the rows from `first` on.
  virtual absl::Status Load(int64_t first, DeviceView<float> out) = 0;
  // The rows from `first` on become `in` [any, cols].
  virtual absl::Status Store(DeviceView<const float> in, int64_t first) = 0;
  // Where it stands for host memory (OpenStates): that has what was stored from here on.
  virtual absl::Status Flush() { return absl::OkStatus(); }
};

// In host memory that outlives it.
class HostStates : public StateStore {
 public:
  HostStates(Device* device, MatrixView states) : device_(device), states_(states) {}
  int64_t rows() const override { return states_.rows; }
  int64_t cols() const override { return states_.cols; }
  absl::Status Load(int64_t first, DeviceView<float> out) override {
    return device_->Upload(states_.Rows(first, out.rows), out);
  }
  absl::Status Store(DeviceView<const float> in, int64_t first) override {
    return device_->Download(in, states_.Rows(first, in.rows));
  }

 private:
  Device* const device_;
  const MatrixView states_;
};

// In memory of the device that outlives it.
class DeviceStates : public StateStore {
 public:
  DeviceStates(Device* device, DeviceView<float> states) : device_(device), states_(states) {}
  int64_t rows() const override { return states_.rows; }
  int64_t cols() const override { return states_.cols; }
  absl::Status Load(int64_t first, DeviceView<float> out) override {
    return device_->Copy(states_.Rows(first, out.rows), out);
  }
  absl::Status Store(DeviceView<const float> in, int64_t first) override {
    return device_->Copy(in, states_.Rows(first, in.rows));
  }

 private:
  Device* const device_;
  const DeviceView<float> states_;
};

// `host`, which outlives it, while layers run over it: in the device's memory where it has one of
// its own, `room_bytes` are enough and they are to be had, so that states cross once in each
// direction and not for every layer; else where they are, from where chunks cross.
absl::StatusOr<std::unique_ptr<StateStore>> OpenStates(Device* device, MatrixView host,
                                                       int64_t room_bytes);

}  // namespace lwq
