// The CUDA device on the host (tests/testing/cuda_host), as a device of the conformance suite. The
// number of threads is the seed of what the device leaves free: the order of streams, blocks and
// threads. Small slots, so that transfers come in pieces.
#include "tests/testing/cuda_host/host_gpu.h"
#include "tests/testing/test_devices.h"
#include "worker/engine/device/cuda/cuda_device.h"

namespace lwq::testing {
namespace {

std::unique_ptr<Device> MakeCudaOnHost(int seed) {
  cuda_host::SetSeed(static_cast<uint64_t>(seed));
  CudaOptions options;
  options.num_upload_slots = 2;
  options.upload_slot_bytes = 4096;
  options.blas_workspace_bytes = 4096;
  auto device = CudaDevice::Create(options);
  EXPECT_OK(device.status());
  return *std::move(device);
}

[[maybe_unused]] const bool added =
    (TestDevices().push_back({"cuda_on_host", &MakeCudaOnHost, {1, 2, 3}, true}), true);

}  // namespace
}  // namespace lwq::testing
