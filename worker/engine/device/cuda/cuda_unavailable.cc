// In place of the CUDA device in a build without CUDA.
#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "worker/engine/device/cuda/make_cuda_device.h"

namespace lwq {

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(int ordinal, int) {
  return Failure(reasons::kDeviceUnavailable,
                 absl::StrCat("device cuda:", ordinal,
                              ": this build has no CUDA; use --device cpu, or build with "
                              "-DLWQ_CUDA=ON"));
}

}  // namespace lwq
