// Row-major matrices in host memory: views that do not own, and an F32 matrix that does. Device
// memory has types of its own (device/device_memory.h), and neither converts to the other.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

#include "worker/engine/tensor/host_memory.h"

namespace lwq {

// [rows, cols] of T in host memory, row r starts at data + r * stride.
template <typename T>
struct HostView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  T* Row(int64_t r) const { return data + r * stride; }
  HostView Rows(int64_t begin, int64_t count) const {
    return {data + begin * stride, count, cols, stride};
  }
  HostView Cols(int64_t begin, int64_t count) const { return {data + begin, rows, count, stride}; }
  operator HostView<const T>() const  // NOLINT: a view narrows to a read-only one
    requires(!std::is_const_v<T>)
  {
    return {data, rows, cols, stride};
  }
};

using MatrixView = HostView<float>;
using ConstMatrixView = HostView<const float>;

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
