// Matrices in device memory as kernels take them: plain pointers and sizes, C++17 without absl, as
// all headers that .cu files include. A kernel's arguments are views, pointers and numbers, so that
// the host build (tests/testing/cuda_host) can check each view against what is allocated.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace lwq::cuda {

// [rows, cols], row r starts at data + r * stride.
template <typename T>
struct View {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  __host__ __device__ T* Row(int64_t r) const { return data + r * stride; }
  __host__ __device__ T& At(int64_t r, int64_t c) const { return data[r * stride + c]; }
  __host__ View Rows(int64_t begin, int64_t count) const {
    return {data + begin * stride, count, cols, stride};
  }
  __host__ bool empty() const { return rows == 0 || cols == 0; }
  // Narrows to read-only.
  template <typename U, typename = std::enable_if_t<std::is_same<U, const T>::value>>
  operator View<U>() const {  // NOLINT
    return {data, rows, cols, stride};
  }
};

// `size` elements that follow each other.
template <typename T>
struct Span {
  T* data = nullptr;
  int64_t size = 0;

  __host__ __device__ T& operator[](int64_t i) const { return data[i]; }
  __host__ __device__ bool empty() const { return size == 0; }
  template <typename U, typename = std::enable_if_t<std::is_same<U, const T>::value>>
  operator Span<U>() const {  // NOLINT
    return {data, size};
  }
};

}  // namespace lwq::cuda
