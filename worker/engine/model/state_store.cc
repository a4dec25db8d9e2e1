#include "worker/engine/model/state_store.h"

#include <utility>

#include "base/status_macros.h"

namespace lwq {
namespace {

// A copy in the device's memory, which goes back at the end.
class ResidentStates : public DeviceStates {
 public:
  ResidentStates(Device* device, std::unique_ptr<DeviceMatrix> copy, MatrixView host)
      : DeviceStates(device, copy->view()), device_(device), copy_(std::move(copy)), host_(host) {}
  absl::Status Flush() override { return device_->Download(copy_->view(), host_); }

 private:
  Device* const device_;
  const std::unique_ptr<DeviceMatrix> copy_;
  const MatrixView host_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StateStore>> OpenStates(Device* device, MatrixView host,
                                                       int64_t room_bytes) {
  const int64_t bytes = host.rows * host.cols * static_cast<int64_t>(sizeof(float));
  if (device->memory_limit_bytes() > 0 && bytes <= room_bytes) {
    auto copy = device->NewMatrix(host.rows, host.cols);
    if (copy.ok()) {
      LWQ_RETURN_IF_ERROR(device->Upload(host, (*copy)->view()));
      return std::make_unique<ResidentStates>(device, *std::move(copy), host);
    }
    if (!absl::IsResourceExhausted(copy.status())) return copy.status();
  }
  return std::make_unique<HostStates>(device, host);
}

}  // namespace lwq
