// Row-major F32 matrices: an owning one in host memory and views that do not own.
#pragma once

#include <cstdint>
#include <memory>

#include "worker/engine/tensor/host_memory.h"

namespace lwq {

// [rows, cols], row r starts at data + r * stride. Whose memory it is (host or device) is said
// where the view is taken.
struct ConstMatrixView {
  const float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  const float* Row(int64_t r) const { return data + r * stride; }
  ConstMatrixView Rows(int64_t begin, int64_t count) const {
    return {data + begin * stride, count, cols, stride};
  }
  ConstMatrixView Cols(int64_t begin, int64_t count) const {
    return {data + begin, rows, count, stride};
  }
};

struct MatrixView {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  float* Row(int64_t r) const { return data + r * stride; }
  MatrixView Rows(int64_t begin, int64_t count) const {
    return {data + begin * stride, count, cols, stride};
  }
  MatrixView Cols(int64_t begin, int64_t count) const {
    return {data + begin, rows, count, stride};
  }
  operator ConstMatrixView() const { return {data, rows, cols, stride}; }  // NOLINT: a view widens
};

// Owns host memory, 64-byte aligned, stride == cols. Contents are not initialised.
class Matrix {
 public:
  Matrix() = default;
  Matrix(int64_t rows, int64_t cols)
      : rows_(rows),
        cols_(cols),
        data_(static_cast<float*>(AllocateHost(static_cast<size_t>(rows * cols) * sizeof(float)))) {
  }

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t size() const { return rows_ * cols_; }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  float* Row(int64_t r) { return data() + r * cols_; }
  const float* Row(int64_t r) const { return data() + r * cols_; }
  MatrixView view() { return {data(), rows_, cols_, cols_}; }
  ConstMatrixView view() const { return {data(), rows_, cols_, cols_}; }

 private:
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::unique_ptr<float[], HostDeleter> data_;
};

}  // namespace lwq
