#include "worker/engine/device/cpu/cpu_device.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "worker/engine/device/cpu/cpu_products.h"
#include "worker/engine/device/host_matrix.h"

namespace lwq {

CpuDevice::CpuDevice(int num_threads)
    : pool_(num_threads), products_(std::make_unique<Products>()) {}
CpuDevice::~CpuDevice() = default;

std::string CpuDevice::Description() const {
  return absl::StrCat("cpu, ", OnednnGemm::IsaName(), ", ", pool_.num_threads(),
                      pool_.num_threads() == 1 ? " thread" : " threads",
                      OnednnGemm::HasNativeBF16() ? "" : ", bf16 by f32 instructions");
}

// Kernels differ between instruction sets in the order of their sums, never between thread counts.
std::string CpuDevice::NumericsClass() const {
  return absl::StrCat("cpu-", OnednnGemm::IsaName(), "-1");
}

// Everywhere: without BF16 instructions the inputs are rounded and multiplied as F32.
bool CpuDevice::Supports(ComputeType) const { return true; }

absl::StatusOr<std::unique_ptr<DeviceMatrix>> CpuDevice::NewMatrix(int64_t rows, int64_t cols) {
  return HostMatrix::Create(rows, cols);
}
absl::Status CpuDevice::Upload(ConstMatrixView host, MatrixView device) {
  return CopyHostMatrix(host, device);
}
absl::Status CpuDevice::Download(ConstMatrixView device, MatrixView host) {
  return CopyHostMatrix(device, host);
}
absl::Status CpuDevice::FillZero(MatrixView m) {
  for (int64_t r = 0; r < m.rows; ++r) std::fill_n(m.Row(r), m.cols, 0.0f);
  return absl::OkStatus();
}

}  // namespace lwq
