#include "worker/engine/device/cuda/solver.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/device/cuda/cuda_status.h"
#include "worker/engine/device/cuda/tile_kernels.h"

namespace lwq::cuda {

absl::StatusOr<std::unique_ptr<Solver>> Solver::Create(std::shared_ptr<DevicePool> pool) {
  std::unique_ptr<Solver> solver(new Solver(std::move(pool)));
  LWQ_RETURN_IF_ERROR(StatusOf(cusolverDnCreate(&solver->handle_), "setting up"));
  LWQ_RETURN_IF_ERROR(
      StatusOf(cusolverDnSetStream(solver->handle_, solver->pool_->stream()), "setting up"));
  LWQ_ASSIGN_OR_RETURN(solver->outcome_, solver->pool_->Allocate(1, sizeof(Outcome), 1));
  LWQ_ASSIGN_OR_RETURN(solver->outcome_on_host_, NewPinned(sizeof(Outcome)));
  return solver;
}

Solver::~Solver() {
  if (handle_ != nullptr) (void)cusolverDnDestroy(handle_);
}

// A row-major lower triangle is to cuSOLVER, which counts by columns, an upper one.
absl::Status Solver::FactorAndInvert(View<float> l, Outcome* on_device) {
  constexpr cublasFillMode_t kTriangle = CUBLAS_FILL_MODE_UPPER;
  const int n = static_cast<int>(l.rows), stride = static_cast<int>(l.stride);
  int floats = 0;
  size_t device_bytes = 0, host_bytes = 0;
  LWQ_RETURN_IF_ERROR(
      StatusOf(cusolverDnSpotrf_bufferSize(handle_, kTriangle, n, l.data, stride, &floats),
               "sizing a factorisation"));
  LWQ_RETURN_IF_ERROR(
      StatusOf(cusolverDnXtrtri_bufferSize(handle_, kTriangle, CUBLAS_DIAG_NON_UNIT, n, CUDA_R_32F,
                                           l.data, stride, &device_bytes, &host_bytes),
               "sizing an inversion"));
  const int64_t bytes =
      std::max(floats * int64_t{sizeof(float)}, static_cast<int64_t>(device_bytes));
  LWQ_ASSIGN_OR_RETURN(const auto workspace, pool_->Allocate(1, bytes, 1));
  host_workspace_.resize(host_bytes);
  uint8_t* work = workspace->data().address();
  LWQ_RETURN_IF_ERROR(
      StatusOf(cusolverDnSpotrf(handle_, kTriangle, n, l.data, stride,
                                reinterpret_cast<float*>(work), floats, &on_device->factored),
               "a factorisation"));
  return StatusOf(cusolverDnXtrtri(handle_, kTriangle, CUBLAS_DIAG_NON_UNIT, n, CUDA_R_32F, l.data,
                                   stride, work, device_bytes, host_workspace_.data(), host_bytes,
                                   &on_device->inverted),
                  "an inversion");
}

absl::Status Solver::InverseCholesky(View<float> h) {
  const int64_t n = h.rows;
  if (n == 0) return absl::OkStatus();
  if (n > std::numeric_limits<int>::max()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot factor a matrix of ", n));
  }
  const cudaStream_t stream = pool_->stream();  // which makes the device current
  auto* on_device = reinterpret_cast<Outcome*>(outcome_->data().address());
  const auto* found = static_cast<const Outcome*>(outcome_on_host_.get());
  LWQ_ASSIGN_OR_RETURN(const auto memory, pool_->Allocate(n, n, sizeof(float)));
  const View<float> l{reinterpret_cast<float*>(memory->data().address()), n, n, n};
  const auto check = [](cudaError_t error) { return StatusOf(error, "factoring"); };
  LWQ_RETURN_IF_ERROR(check(cudaMemsetAsync(on_device, 0xff, sizeof(Outcome), stream)));
  LWQ_RETURN_IF_ERROR(check(ReverseLower(stream, h, l)));
  LWQ_RETURN_IF_ERROR(FactorAndInvert(l, on_device));
  LWQ_RETURN_IF_ERROR(check(ReverseFactor(stream, l, h, &on_device->first_bad)));
  LWQ_RETURN_IF_ERROR(check(cudaMemcpyAsync(outcome_on_host_.get(), on_device, sizeof(Outcome),
                                            cudaMemcpyDeviceToHost, stream)));
  LWQ_RETURN_IF_ERROR(check(cudaStreamSynchronize(stream)));
  if (found->factored == 0 && found->inverted == 0 && found->first_bad == ~0ull) {
    return absl::OkStatus();
  }
  const int64_t column = found->factored > 0 ? n - found->factored
                                             : static_cast<int64_t>(std::min<unsigned long long>(
                                                   found->first_bad, static_cast<uint64_t>(n - 1)));
  return Failure(
      reasons::kNotPositiveDefinite,
      absl::StrCat("factoring a matrix of ", n, ": not positive definite at column ", column));
}

}  // namespace lwq::cuda
