// The calls of cuSOLVER in use, over plain loops with sums in double. Matrices are column-major;
// their upper triangles are used, the lower ones neither read nor written.
#include <cusolverDn.h>

#include <cmath>
#include <vector>

#include "tests/testing/cuda_host/host_gpu.h"

struct cusolverDnContext {
  cudaStream_t stream = nullptr;
};

namespace {

namespace host = lwq::cuda_host;

// Odd on purpose: who assumes a size is found out.
constexpr int kWorkspaceFloats = 77;
constexpr size_t kWorkspaceBytes = 123;

cusolverStatus_t StatusOf(cudaError_t error) {
  return error == cudaSuccess ? CUSOLVER_STATUS_SUCCESS : CUSOLVER_STATUS_EXECUTION_FAILED;
}

bool AllUsable(const void* a, int64_t n, int64_t lda, const void* workspace, size_t bytes,
               const int* info) {
  return host::MatrixIsUsable("a factor", a, n, n, lda, sizeof(float)) &&
         host::MatrixIsUsable("the workspace", workspace, static_cast<int64_t>(bytes), 1, 0, 1) &&
         host::MatrixIsUsable("the outcome", info, 1, 1, 1, sizeof(int));
}

// a = u^T u; the number of the first column where that fails, or 0.
int Factor(float* a, int64_t n, int64_t lda) {
  std::vector<double> u(static_cast<size_t>(n * n));
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i <= j; ++i) {
      double sum = a[i + j * lda];
      for (int64_t k = 0; k < i; ++k) sum -= u[k + i * n] * u[k + j * n];
      if (i == j && sum <= 0) return static_cast<int>(j + 1);
      u[i + j * n] = i == j ? std::sqrt(sum) : sum / u[i + i * n];
      a[i + j * lda] = static_cast<float>(u[i + j * n]);
    }
  }
  return 0;
}

void Invert(float* a, int64_t n, int64_t lda) {
  std::vector<double> inverse(static_cast<size_t>(n * n));
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = j; i >= 0; --i) {
      double sum = i == j ? 1 : 0;
      for (int64_t k = i + 1; k <= j; ++k) sum -= a[i + k * lda] * inverse[k + j * n];
      inverse[i + j * n] = sum / a[i + i * lda];
    }
  }
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i <= j; ++i) a[i + j * lda] = static_cast<float>(inverse[i + j * n]);
  }
}

}  // namespace

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  *handle = new cusolverDnContext;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
  delete handle;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnSpotrf_bufferSize(cusolverDnHandle_t, cublasFillMode_t, int, float*, int,
                                             int* floats) {
  *floats = kWorkspaceFloats;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSpotrf(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, float* a,
                                  int lda, float* workspace, int floats, int* info) {
  if (uplo != CUBLAS_FILL_MODE_UPPER || n < 1 || lda < n || floats < kWorkspaceFloats) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  return StatusOf(host::Enqueue(handle->stream, [=] {
    if (AllUsable(a, n, lda, workspace, sizeof(float) * kWorkspaceFloats, info)) {
      *info = Factor(a, n, lda);
    }
  }));
}

cusolverStatus_t cusolverDnXtrtri_bufferSize(cusolverDnHandle_t, cublasFillMode_t, cublasDiagType_t,
                                             int64_t, cudaDataType, void*, int64_t,
                                             size_t* device_bytes, size_t* host_bytes) {
  *device_bytes = kWorkspaceBytes;
  *host_bytes = 0;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXtrtri(cusolverDnHandle_t handle, cublasFillMode_t uplo,
                                  cublasDiagType_t, int64_t n, cudaDataType type, void* a,
                                  int64_t lda, void* device_workspace, size_t device_bytes, void*,
                                  size_t, int* info) {
  if (uplo != CUBLAS_FILL_MODE_UPPER || type != CUDA_R_32F || n < 1 || lda < n ||
      device_bytes < kWorkspaceBytes) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  return StatusOf(host::Enqueue(handle->stream, [=] {
    if (!AllUsable(a, n, lda, device_workspace, kWorkspaceBytes, info)) return;
    *info = 0;
    Invert(static_cast<float*>(a), n, lda);
  }));
}
