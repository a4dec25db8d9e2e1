#include "worker/engine/device/cpu/cpu_device.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cpu/cpu_products.h"
#include "worker/engine/device/cpu/cpu_space.h"

extern "C" char* openblas_get_corename(void);

namespace lwq {
namespace {

constexpr int64_t kRowsPerTask = 64;

template <typename Body>
void ForRows(ThreadPool& pool, int64_t rows, const Body& body) {
  pool.ParallelForBlocks(rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) body(r);
  });
}

absl::Status CopyRows(ThreadPool& pool, HostView<const uint8_t> from, HostView<uint8_t> to) {
  ForRows(pool, from.rows,
          [&](int64_t r) { std::memcpy(to.Row(r), from.Row(r), static_cast<size_t>(from.cols)); });
  return absl::OkStatus();
}

template <typename T>
absl::Status Gather(ThreadPool& pool, HostView<const T> from, absl::Span<const int32_t> columns,
                    HostView<T> to) {
  LWQ_RETURN_IF_ERROR(CheckGather<T>(from, columns, to));
  ForRows(pool, to.rows, [&](int64_t r) {
    const T* row = from.Row(r);
    T* out = to.Row(r);
    for (int64_t j = 0; j < to.cols; ++j) out[j] = row[columns[j]];
  });
  return absl::OkStatus();
}

// The loops below are plain so that the compiler turns them into vector code.
void WidenBF16Row(const BF16* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = BF16ToFloat(from[i].bits);
}

// As F16ToFloat, both cases computed and one selected, without branches.
void WidenF16Row(const F16* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t half = from[i].bits;
    const uint32_t magnitude = (half & 0x7fffu) << 13;
    // Infinity and NaN need 112 more in the exponent than normal values do.
    const uint32_t rebias = magnitude >= 0x0f800000u ? 0x70000000u : 0x38000000u;
    const uint32_t normal = magnitude + rebias;
    const float subnormal_value =
        static_cast<float>(static_cast<int32_t>(half & 0x3ffu)) * 0x1p-24f;
    const uint32_t subnormal = std::bit_cast<uint32_t>(subnormal_value);
    const uint32_t value = magnitude < 0x00800000u ? subnormal : normal;
    to[i] = std::bit_cast<float>(value | (half & 0x8000u) << 16);
  }
}

bool AllFinite(const float* x, int64_t n) {
  int bad = 0;
  for (int64_t i = 0; i < n; ++i) bad |= !(std::fabs(x[i]) <= FLT_MAX);
  return bad == 0;
}

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
// OpenBLAS, which factors, chooses by the model of the CPU.
std::string CpuDevice::NumericsClass() const {
  return absl::StrCat("cpu-", OnednnGemm::IsaName(), "-", openblas_get_corename(), "-1");
}

// Everywhere: without BF16 instructions the inputs are rounded and multiplied as F32.
bool CpuDevice::Supports(ComputeType) const { return true; }

void CpuDevice::ReleaseScratch() {
  products_->input = HostBuffer();
  products_->transposed = HostBuffer();
  products_->packed = PackedMatrix();
}

absl::StatusOr<std::unique_ptr<DeviceMemory>> CpuDevice::Allocate(int64_t rows, int64_t cols,
                                                                  int64_t element_bytes) {
  return HostSpace(0).Allocate(rows, cols, element_bytes);
}
absl::Status CpuDevice::UploadBytes(HostView<const uint8_t> host, DeviceView<uint8_t> device) {
  return CopyRows(pool_, host, Host(device));
}
absl::Status CpuDevice::DownloadBytes(DeviceView<const uint8_t> device, HostView<uint8_t> host) {
  return CopyRows(pool_, Host(device), host);
}
absl::Status CpuDevice::CopyBytes(DeviceView<const uint8_t> from, DeviceView<uint8_t> to) {
  return CopyRows(pool_, Host(from), Host(to));
}
absl::Status CpuDevice::ZeroBytes(DeviceView<uint8_t> m) {
  ForRows(pool_, m.rows,
          [&](int64_t r) { std::memset(Row(m, r), 0, static_cast<size_t>(m.cols)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::Widen(DeviceView<const BF16> from, DeviceView<float> to) {
  LWQ_RETURN_IF_ERROR(CheckShape("what is widened", from, to.rows, to.cols));
  ForRows(pool_, to.rows, [&](int64_t r) { WidenBF16Row(Row(from, r), to.cols, Row(to, r)); });
  return absl::OkStatus();
}
absl::Status CpuDevice::Widen(DeviceView<const F16> from, DeviceView<float> to) {
  LWQ_RETURN_IF_ERROR(CheckShape("what is widened", from, to.rows, to.cols));
  ForRows(pool_, to.rows, [&](int64_t r) { WidenF16Row(Row(from, r), to.cols, Row(to, r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::GatherColumns(DeviceView<const float> from,
                                      DeviceSpan<const int32_t> columns, DeviceView<float> to) {
  return Gather(pool_, Host(from), Host(columns), Host(to));
}
absl::Status CpuDevice::GatherColumns(DeviceView<const uint8_t> from,
                                      DeviceSpan<const int32_t> columns, DeviceView<uint8_t> to) {
  return Gather(pool_, Host(from), Host(columns), Host(to));
}

absl::Status CpuDevice::CheckFinite(absl::string_view what, DeviceView<const float> x) {
  std::atomic<int64_t> first_row{x.rows};
  ForRows(pool_, x.rows, [&](int64_t r) {
    if (AllFinite(Row(x, r), x.cols)) return;
    int64_t first = first_row;
    while (r < first && !first_row.compare_exchange_weak(first, r)) {
    }
  });
  const int64_t r = first_row;
  if (r == x.rows) return absl::OkStatus();
  const float* row = Row(x, r);
  const float* found =
      std::find_if(row, row + x.cols, [](float value) { return !std::isfinite(value); });
  return NotFinite(what, r, found - row, *found);
}

}  // namespace lwq
