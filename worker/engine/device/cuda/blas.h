// Products by cuBLAS, for row-major matrices. Sums are in F32; TF32 is never used.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/device/cuda/device_pool.h"
#include "worker/engine/device/cuda/view.h"

namespace lwq::cuda {

// A matrix of F32 or BF16.
struct Operand {
  Operand(View<const float> m)  // NOLINT: an operand is a matrix
      : data(m.data), rows(m.rows), cols(m.cols), stride(m.stride), type(CUDA_R_32F) {}
  Operand(View<const uint16_t> m)  // NOLINT
      : data(m.data), rows(m.rows), cols(m.cols), stride(m.stride), type(CUDA_R_16BF) {}

  const void* data;
  int64_t rows, cols, stride;
  cudaDataType type;
};

class Blas {
 public:
  // `workspace_bytes` of the pool are cuBLAS's to work in.
  static absl::StatusOr<std::unique_ptr<Blas>> Create(std::shared_ptr<DevicePool> pool,
                                                      int64_t workspace_bytes);
  ~Blas();

  // y = alpha x w^T + beta y; x [T, K], w [N, K] of one type. With a beta of 0, y is not read.
  absl::Status TimesTransposed(float alpha, const Operand& x, const Operand& w, float beta,
                               View<float> y);
  // c += alpha a b.
  absl::Status AddProduct(float alpha, const Operand& a, const Operand& b, View<float> c);
  // gram += x^T x, at least on and below the diagonal.
  absl::Status AddGram(const Operand& x, View<float> gram);

  int version() const { return version_; }

 private:
  explicit Blas(std::shared_ptr<DevicePool> pool) : pool_(std::move(pool)) {}
  // c = alpha op(a) op(b) + beta c as cuBLAS has it, column-major.
  absl::Status Gemm(cublasOperation_t op_a, cublasOperation_t op_b, int64_t m, int64_t n, int64_t k,
                    float alpha, const Operand& a, const Operand& b, float beta, View<float> c);

  const std::shared_ptr<DevicePool> pool_;
  std::unique_ptr<DeviceMemory> workspace_;
  cublasHandle_t handle_ = nullptr;
  int version_ = 0;
};

}  // namespace lwq::cuda
