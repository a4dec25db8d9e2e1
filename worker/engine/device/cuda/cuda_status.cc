#include "worker/engine/device/cuda/cuda_status.h"

#include "absl/strings/str_cat.h"

namespace lwq::cuda {

absl::Status StatusOf(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text = absl::StrCat("CUDA: ", what, ": ", cudaGetErrorString(error), " (",
                                        static_cast<int>(error), ")");
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  return absl::InternalError(text);
}

absl::Status StatusOf(cublasStatus_t status, absl::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string text = absl::StrCat("cuBLAS: ", what, ": ", cublasGetStatusString(status), " (",
                                        static_cast<int>(status), ")");
  if (status == CUBLAS_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(text);
  return absl::InternalError(text);
}

absl::Status StatusOf(cusolverStatus_t status, absl::string_view what) {
  if (status == CUSOLVER_STATUS_SUCCESS) return absl::OkStatus();
  const std::string text =
      absl::StrCat("cuSOLVER: ", what, " failed (", static_cast<int>(status), ")");
  if (status == CUSOLVER_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(text);
  return absl::InternalError(text);
}

}  // namespace lwq::cuda
