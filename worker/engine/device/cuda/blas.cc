// cuBLAS takes column-major matrices, so each of ours is to it the transposed one, and y = x w^T is
// computed as y^T = w x^T.
#include "worker/engine/device/cuda/blas.h"

#include <algorithm>

#include "base/status_macros.h"
#include "worker/engine/device/cuda/cuda_status.h"

namespace lwq::cuda {
namespace {

// Columns of a Gram matrix that one product computes, where there is no product for symmetric ones.
constexpr int64_t kGramPanel = 1024;

// Strides that no row needs, of matrices of one row, may be anything in our views; a leading
// dimension is at least 1.
int64_t Stride(int64_t stride, int64_t cols) { return std::max<int64_t>({stride, cols, 1}); }

}  // namespace

absl::StatusOr<std::unique_ptr<Blas>> Blas::Create(std::shared_ptr<DevicePool> pool,
                                                   int64_t workspace_bytes) {
  std::unique_ptr<Blas> blas(new Blas(std::move(pool)));
  LWQ_ASSIGN_OR_RETURN(blas->workspace_, blas->pool_->Allocate(1, workspace_bytes, 1));
  const auto check = [](cublasStatus_t status) { return StatusOf(status, "setting up"); };
  LWQ_RETURN_IF_ERROR(check(cublasCreate(&blas->handle_)));
  LWQ_RETURN_IF_ERROR(check(cublasGetVersion(blas->handle_, &blas->version_)));
  LWQ_RETURN_IF_ERROR(check(cublasSetStream(blas->handle_, blas->pool_->stream())));
  // Its own would not be counted. After SetStream, which takes it away again.
  LWQ_RETURN_IF_ERROR(check(cublasSetWorkspace(blas->handle_, blas->workspace_->data().address(),
                                               static_cast<size_t>(workspace_bytes))));
  LWQ_RETURN_IF_ERROR(
      check(cublasSetMathMode(blas->handle_, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)));
  return blas;
}

Blas::~Blas() {
  if (handle_ != nullptr) (void)cublasDestroy(handle_);
}

absl::Status Blas::Gemm(cublasOperation_t op_a, cublasOperation_t op_b, int64_t m, int64_t n,
                        int64_t k, float alpha, const Operand& a, const Operand& b, float beta,
                        View<float> c) {
  if (m == 0 || n == 0) return absl::OkStatus();
  (void)pool_->stream();  // makes the device current
  return StatusOf(
      cublasGemmEx_64(handle_, op_a, op_b, m, n, k, &alpha, a.data, a.type,
                      Stride(a.stride, a.cols), b.data, b.type, Stride(b.stride, b.cols), &beta,
                      c.data, CUDA_R_32F, Stride(c.stride, c.cols), CUBLAS_COMPUTE_32F,
                      CUBLAS_GEMM_DEFAULT),
      "a product");
}

absl::Status Blas::TimesTransposed(float alpha, const Operand& x, const Operand& w, float beta,
                                   View<float> y) {
  return Gemm(CUBLAS_OP_T, CUBLAS_OP_N, w.rows, x.rows, x.cols, alpha, w, x, beta, y);
}

absl::Status Blas::AddProduct(float alpha, const Operand& a, const Operand& b, View<float> c) {
  return Gemm(CUBLAS_OP_N, CUBLAS_OP_N, b.cols, a.rows, a.cols, alpha, b, a, 1, c);
}

absl::Status Blas::AddGram(const Operand& x, View<float> gram) {
  const int64_t n = x.cols;
  if (n == 0 || x.rows == 0) return absl::OkStatus();
  if (x.type == CUDA_R_32F) {
    const float one = 1;
    (void)pool_->stream();  // makes the device current
    return StatusOf(cublasSsyrk_64(handle_, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_N, n, x.rows, &one,
                                   static_cast<const float*>(x.data), Stride(x.stride, x.cols),
                                   &one, gram.data, Stride(gram.stride, n)),
                    "second moments");
  }
  // Columns [first, first + size) of all rows from `first` on.
  for (int64_t first = 0; first < n; first += kGramPanel) {
    const int64_t size = std::min(kGramPanel, n - first);
    Operand left = x;
    left.data = static_cast<const uint16_t*>(x.data) + first;
    left.cols = size;
    Operand right = left;
    right.cols = n - first;
    LWQ_RETURN_IF_ERROR(
        Gemm(CUBLAS_OP_N, CUBLAS_OP_T, size, n - first, x.rows, 1, left, right, 1,
             {gram.data + first * gram.stride + first, n - first, size, gram.stride}));
  }
  return absl::OkStatus();
}

}  // namespace lwq::cuda
