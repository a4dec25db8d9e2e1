// The calls of cuBLAS in use, over plain loops with sums in double, in the order of their stream.
// Matrices are column-major, as there.
#include <cublas_v2.h>

#include <bit>
#include <cstdint>
#include <vector>

#include "tests/testing/cuda_host/host_gpu.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
};

namespace {

namespace host = lwq::cuda_host;

size_t BytesOf(cudaDataType type) { return type == CUDA_R_16BF ? 2 : 4; }

struct Side {
  const void* data;
  cudaDataType type;
  int64_t stride;
  bool transposed;

  // Of op(matrix).
  float At(int64_t row, int64_t col) const {
    const int64_t at = transposed ? col + row * stride : row + col * stride;
    if (type == CUDA_R_32F) return static_cast<const float*>(data)[at];
    return std::bit_cast<float>(uint32_t{static_cast<const uint16_t*>(data)[at]} << 16);
  }
  bool IsUsable(const char* what, int64_t rows, int64_t cols) const {
    return host::MatrixIsUsable(what, data, transposed ? cols : rows, transposed ? rows : cols,
                                stride, BytesOf(type));
  }
};

// In eight sums, so that the loop is fast enough for whole jobs.
double Dot(const float* a, const float* b, int64_t n) {
  constexpr int64_t kSums = 8;
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (int64_t s = 0; s < kSums; ++s) sums[s] += double{a[i + s]} * b[i + s];
  }
  for (; i < n; ++i) sums[0] += double{a[i]} * b[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// c = alpha a b + beta c over the elements that `wanted` takes. What beta of zero multiplies is not
// read.
template <typename Wanted>
void Multiply(const Side& a, const Side& b, int64_t m, int64_t n, int64_t k, float alpha,
              float beta, float* c, int64_t ldc, Wanted wanted) {
  if (!a.IsUsable("a product's left side", m, k) || !b.IsUsable("a product's right side", k, n) ||
      !host::MatrixIsUsable("a product", c, m, n, ldc, sizeof(float))) {
    return;
  }
  std::vector<float> rows(static_cast<size_t>(m * k)), cols(static_cast<size_t>(n * k));
  for (int64_t l = 0; l < k; ++l) {
    for (int64_t i = 0; i < m; ++i) rows[i * k + l] = a.At(i, l);
    for (int64_t j = 0; j < n; ++j) cols[j * k + l] = b.At(l, j);
  }
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < m; ++i) {
      if (!wanted(i, j)) continue;
      const double sum = Dot(rows.data() + i * k, cols.data() + j * k, k);
      float& out = c[i + j * ldc];
      out = static_cast<float>(alpha * sum + (beta == 0 ? 0.0 : double{beta} * out));
    }
  }
}

cublasStatus_t StatusOf(cudaError_t error) {
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace

const char* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "the library failed";
}
cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  *handle = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetVersion(cublasHandle_t, int* version) {
  *version = 130000;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* data, size_t bytes) {
  return StatusOf(host::Enqueue(handle->stream, [=] {
    host::MatrixIsUsable("the workspace", data, static_cast<int64_t>(bytes), 1, 0, 1);
  }));
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  handle->math = mode;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t op_a,
                               cublasOperation_t op_b, int64_t m, int64_t n, int64_t k,
                               const void* alpha, const void* a, cudaDataType a_type, int64_t lda,
                               const void* b, cudaDataType b_type, int64_t ldb, const void* beta,
                               void* c, cudaDataType c_type, int64_t ldc, cublasComputeType_t,
                               cublasGemmAlgo_t) {
  if (m < 0 || n < 0 || k < 0 || a_type != b_type || c_type != CUDA_R_32F || ldc < m ||
      lda < (op_a == CUBLAS_OP_N ? m : k) || ldb < (op_b == CUBLAS_OP_N ? k : n)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  // The numbers are the host's: read now.
  const float alpha_value = *static_cast<const float*>(alpha);
  const float beta_value = *static_cast<const float*>(beta);
  return StatusOf(host::Enqueue(handle->stream, [=] {
    Multiply({a, a_type, lda, op_a == CUBLAS_OP_T}, {b, b_type, ldb, op_b == CUBLAS_OP_T}, m, n, k,
             alpha_value, beta_value, static_cast<float*>(c), ldc,
             [](int64_t, int64_t) { return true; });
  }));
}

cublasStatus_t cublasSsyrk_64(cublasHandle_t handle, cublasFillMode_t uplo, cublasOperation_t op,
                              int64_t n, int64_t k, const float* alpha, const float* a, int64_t lda,
                              const float* beta, float* c, int64_t ldc) {
  if (n < 0 || k < 0 || ldc < n || lda < (op == CUBLAS_OP_N ? n : k)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const float alpha_value = *alpha, beta_value = *beta;
  const bool upper = uplo == CUBLAS_FILL_MODE_UPPER, transposed = op == CUBLAS_OP_T;
  return StatusOf(host::Enqueue(handle->stream, [=] {
    Multiply({a, CUDA_R_32F, lda, transposed}, {a, CUDA_R_32F, lda, !transposed}, n, n, k,
             alpha_value, beta_value, c, ldc,
             [upper](int64_t i, int64_t j) { return upper ? i <= j : i >= j; });
  }));
}
