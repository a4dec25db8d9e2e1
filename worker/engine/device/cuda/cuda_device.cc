#include "worker/engine/device/cuda/cuda_device.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cuda/device_views.h"
#include "worker/engine/device/cuda/element_kernels.h"

namespace lwq {

using cuda::BitsOf;
using cuda::SpanOf;
using cuda::StatusOf;
using cuda::ViewOf;

namespace {

// The first that multiplies bf16; there is machine code for none before (CMakeLists.txt).
constexpr int kLeastMajor = 8;

}  // namespace

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Create(const CudaOptions& options) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || options.ordinal < 0 || options.ordinal >= count) {
    return Failure(reasons::kDeviceMissing,
                   absl::StrCat("device cuda:", options.ordinal, ": this machine has ", count,
                                " GPUs that CUDA can use", error == cudaSuccess ? "" : ": ",
                                error == cudaSuccess ? "" : cudaGetErrorString(error)));
  }
  cudaDeviceProp properties;
  int runtime = 0;
  LWQ_RETURN_IF_ERROR(StatusOf(cudaGetDeviceProperties(&properties, options.ordinal),
                               "asking for the device's properties"));
  if (properties.major < kLeastMajor) {
    return Failure(reasons::kDeviceUnavailable,
                   absl::StrCat("device cuda:", options.ordinal, ": ", properties.name,
                                " has compute capability ", properties.major, ".", properties.minor,
                                ", at least ", kLeastMajor, ".0 is needed"));
  }
  LWQ_RETURN_IF_ERROR(
      StatusOf(cudaRuntimeGetVersion(&runtime), "asking for the run-time's version"));
  LWQ_ASSIGN_OR_RETURN(auto pool,
                       cuda::DevicePool::Create(options.ordinal, options.memory_limit_bytes));
  LWQ_ASSIGN_OR_RETURN(auto blas, cuda::Blas::Create(pool, options.blas_workspace_bytes));
  std::string model = absl::AsciiStrToLower(properties.name);
  std::replace(model.begin(), model.end(), ' ', '-');
  // cuBLAS chooses its kernels by the model and the number of multiprocessors.
  std::unique_ptr<CudaDevice> device(new CudaDevice(
      options,
      absl::StrCat("cuda:", options.ordinal, ": ", properties.name, ", compute capability ",
                   properties.major, ".", properties.minor, ", CUDA ", runtime / 1000, ".",
                   runtime % 1000 / 10, ", at most ", pool->limit_bytes() >> 20, " MiB"),
      absl::StrCat("cuda-", model, "-", properties.multiProcessorCount, "-cublas", blas->version(),
                   "-1")));
  device->pool_ = std::move(pool);
  device->blas_ = std::move(blas);
  LWQ_ASSIGN_OR_RETURN(device->solver_, cuda::Solver::Create(device->pool_));
  LWQ_ASSIGN_OR_RETURN(device->checks_, cuda::DeferredChecks::Create(device->pool_));
  LWQ_ASSIGN_OR_RETURN(
      device->transfers_,
      cuda::Transfers::Create(device->pool_, options.num_upload_slots, options.upload_slot_bytes));
  device->own_bytes_ = device->pool_->used_bytes();
  return device;
}

CudaDevice::CudaDevice(const CudaOptions& options, std::string description,
                       std::string numerics_class)
    : name_(absl::StrCat("cuda:", options.ordinal)),
      description_(std::move(description)),
      numerics_class_(std::move(numerics_class)),
      host_threads_(options.host_threads) {}

CudaDevice::~CudaDevice() = default;

std::string CudaDevice::Description() const { return description_; }
std::string CudaDevice::NumericsClass() const { return numerics_class_; }

// An error of memory or of arguments is the call's own; a fault is every later call's too.
bool CudaDevice::Lost() { return cudaStreamSynchronize(stream()) != cudaSuccess; }

void CudaDevice::ReleaseScratch() { pool_->Trim(); }

absl::Status CudaDevice::Synchronize() { return checks_->Collect(); }

absl::StatusOr<std::unique_ptr<DeviceMemory>> CudaDevice::Allocate(int64_t rows, int64_t cols,
                                                                   int64_t element_bytes) {
  return pool_->Allocate(rows, cols, element_bytes);
}

absl::Status CudaDevice::UploadBytes(HostView<const uint8_t> host, DeviceView<uint8_t> device) {
  return transfers_->Upload(host, ViewOf(device));
}

absl::Status CudaDevice::DownloadBytes(DeviceView<const uint8_t> device, HostView<uint8_t> host) {
  LWQ_RETURN_IF_ERROR(transfers_->Download(ViewOf(device), host));
  return checks_->any() ? checks_->Collect() : absl::OkStatus();
}

absl::Status CudaDevice::CopyBytes(DeviceView<const uint8_t> from, DeviceView<uint8_t> to) {
  if (from.empty()) return absl::OkStatus();
  const size_t width = static_cast<size_t>(from.cols);
  return StatusOf(
      cudaMemcpy2DAsync(to.data.address(), static_cast<size_t>(std::max(to.stride, to.cols)),
                        from.data.address(), static_cast<size_t>(std::max(from.stride, from.cols)),
                        width, static_cast<size_t>(from.rows), cudaMemcpyDeviceToDevice, stream()),
      "copying");
}

absl::Status CudaDevice::ZeroBytes(DeviceView<uint8_t> m) {
  if (m.empty()) return absl::OkStatus();
  return StatusOf(
      cudaMemset2DAsync(m.data.address(), static_cast<size_t>(std::max(m.stride, m.cols)), 0,
                        static_cast<size_t>(m.cols), static_cast<size_t>(m.rows), stream()),
      "filling with zeros");
}

absl::Status CudaDevice::Widen(DeviceView<const BF16> from, DeviceView<float> to) {
  LWQ_RETURN_IF_ERROR(CheckShape("what is widened", from, to.rows, to.cols));
  return StatusOf(cuda::WidenBF16(stream(), BitsOf(from), ViewOf(to)), "widening");
}
absl::Status CudaDevice::Widen(DeviceView<const F16> from, DeviceView<float> to) {
  LWQ_RETURN_IF_ERROR(CheckShape("what is widened", from, to.rows, to.cols));
  return StatusOf(cuda::WidenF16(stream(), BitsOf(from), ViewOf(to)), "widening");
}

// Which columns are asked for is known to the device alone, so one outside is reported later.
template <typename T>
absl::Status CudaDevice::Gather(DeviceView<const T> from, DeviceSpan<const int32_t> columns,
                                DeviceView<T> to) {
  const std::string shapes =
      absl::StrCat("cannot gather ", columns.size, " columns of [", from.rows, ", ", from.cols,
                   "] into [", to.rows, ", ", to.cols, "]");
  if (from.rows != to.rows || columns.size != to.cols) return absl::InvalidArgumentError(shapes);
  LWQ_ASSIGN_OR_RETURN(const auto place, checks_->Add([shapes](int64_t first, float) {
    return absl::InvalidArgumentError(
        absl::StrCat(shapes, ": column number ", first, " of them lies outside"));
  }));
  return StatusOf(
      cuda::GatherColumns(stream(), ViewOf(from), SpanOf(columns), ViewOf(to), place.first),
      "gathering columns");
}

absl::Status CudaDevice::GatherColumns(DeviceView<const float> from,
                                       DeviceSpan<const int32_t> columns, DeviceView<float> to) {
  return Gather(from, columns, to);
}
absl::Status CudaDevice::GatherColumns(DeviceView<const uint8_t> from,
                                       DeviceSpan<const int32_t> columns, DeviceView<uint8_t> to) {
  return Gather(from, columns, to);
}

absl::Status CudaDevice::CheckFinite(absl::string_view what, DeviceView<const float> x) {
  LWQ_ASSIGN_OR_RETURN(const auto place, checks_->Add([what = std::string(what), cols = x.cols](
                                                          int64_t first, float value) {
    return NotFinite(what, first / cols, first % cols, value);
  }));
  return StatusOf(cuda::FindNotFinite(stream(), ViewOf(x), place.first, place.value),
                  "looking for values that are not finite");
}

}  // namespace lwq
