#include "worker/engine/device/cuda/make_cuda_device.h"

#include "base/status_macros.h"
#include "worker/engine/device/cuda/cuda_device.h"

namespace lwq {

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(int ordinal, int host_threads) {
  CudaOptions options;
  options.ordinal = ordinal;
  options.host_threads = host_threads;
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<CudaDevice> device, CudaDevice::Create(options));
  return device;
}

}  // namespace lwq
