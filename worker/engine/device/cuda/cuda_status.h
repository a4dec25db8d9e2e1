// What CUDA and its libraries answer, as absl::Status: RESOURCE_EXHAUSTED where memory ran out,
// else INTERNAL. After a fault of the device every later call fails with it, until the process
// ends.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lwq::cuda {

// `what` was being done.
absl::Status StatusOf(cudaError_t error, absl::string_view what);
absl::Status StatusOf(cublasStatus_t status, absl::string_view what);
absl::Status StatusOf(cusolverStatus_t status, absl::string_view what);

}  // namespace lwq::cuda
