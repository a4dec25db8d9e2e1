#include "worker/engine/device/cpu/cpu_device.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cpu/cpu_products.h"
#include "worker/engine/device/host_matrix.h"

namespace lwq {
namespace {

constexpr int64_t kRowsPerTask = 64;

}  // namespace

CpuDevice::CpuDevice(int num_threads)
    : pool_(num_threads), products_(std::make_unique<CpuProducts>()) {}
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
  return Copy(host, device);
}
absl::Status CpuDevice::Download(ConstMatrixView device, MatrixView host) {
  return Copy(device, host);
}
absl::Status CpuDevice::FillZero(MatrixView m) {
  pool_.ParallelForBlocks(m.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::fill_n(m.Row(r), m.cols, 0.0f);
  });
  return absl::OkStatus();
}
absl::Status CpuDevice::Copy(ConstMatrixView from, MatrixView to) {
  LWQ_RETURN_IF_ERROR(CheckShape("copy's source", from, to.rows, to.cols));
  pool_.ParallelForBlocks(from.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::copy_n(from.Row(r), from.cols, to.Row(r));
  });
  return absl::OkStatus();
}
absl::Status CpuDevice::GatherColumns(ConstMatrixView from, absl::Span<const int32_t> columns,
                                      MatrixView to) {
  LWQ_RETURN_IF_ERROR(CheckGather(from, columns, to));
  pool_.ParallelForBlocks(to.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = from.Row(r);
      for (int64_t j = 0; j < to.cols; ++j) to.Row(r)[j] = row[columns[j]];
    }
  });
  return absl::OkStatus();
}

}  // namespace lwq
