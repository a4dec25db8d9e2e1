// The types of device memory. A device's addresses mean something to that device alone, so they
// have types that neither convert to pointers nor from them: host memory handed to an operation
// does not compile, and neither does a host loop over device memory. Who insists goes through
// DevicePtr's constructor or address(), and faults on a device whose memory lies elsewhere; the
// reference device has such a variant, and the conformance suite runs on it.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace lwq {

// Where a T lies, as a device counts.
template <typename T>
class DevicePtr {
 public:
  DevicePtr() = default;
  // For devices: what `address` points to must be theirs.
  explicit DevicePtr(T* address) : address_(address) {}
  operator DevicePtr<const T>() const  // NOLINT: narrows to read-only
      requires(!std::is_const_v<T>) {
    return DevicePtr<const T>(address_);
  }

  // For devices: only they can follow it.
  T* address() const { return address_; }
  explicit operator bool() const { return address_ != nullptr; }
  // Counts in integers: host pointers may not leave the object that they point into.
  DevicePtr operator+(int64_t count) const {
    return DevicePtr(reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(address_) +
                                          static_cast<uintptr_t>(count) * sizeof(T)));
  }

 private:
  T* address_ = nullptr;
};

// `size` elements that follow each other.
template <typename T>
struct DeviceSpan {
  DevicePtr<T> data;
  int64_t size = 0;

  bool empty() const { return size == 0; }
  DeviceSpan Part(int64_t begin, int64_t count) const { return {data + begin, count}; }
  operator DeviceSpan<const T>() const  // NOLINT: narrows to read-only
      requires(!std::is_const_v<T>) {
    return {data, size};
  }
};

// [rows, cols], row r starts at data + r * stride.
template <typename T>
struct DeviceView {
  DevicePtr<T> data;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  bool empty() const { return rows == 0 || cols == 0; }
  DeviceView Rows(int64_t begin, int64_t count) const {
    return {data + begin * stride, count, cols, stride};
  }
  DeviceView Cols(int64_t begin, int64_t count) const {
    return {data + begin, rows, count, stride};
  }
  DeviceSpan<T> Row(int64_t r) const { return {data + r * stride, cols}; }
  // [min(rows, cols), 1].
  DeviceView Diagonal() const { return {data, rows < cols ? rows : cols, 1, stride + 1}; }
  operator DeviceView<const T>() const  // NOLINT: narrows to read-only
      requires(!std::is_const_v<T>) {
    return {data, rows, cols, stride};
  }
};

// Bytes of a device's memory, given back when it goes.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  // 64-byte aligned.
  virtual DevicePtr<uint8_t> data() const = 0;
};

// Owns [rows, cols] of T in device memory, row after row. Contents are not initialised.
template <typename T>
class DeviceBuffer {
 public:
  static_assert(std::is_trivially_copyable_v<T>);
  DeviceBuffer(std::unique_ptr<DeviceMemory> memory, int64_t rows, int64_t cols)
      : memory_(std::move(memory)), rows_(rows), cols_(cols) {}

  DeviceView<T> view() { return {data(), rows_, cols_, cols_}; }
  DeviceView<const T> view() const { return {data(), rows_, cols_, cols_}; }
  DeviceView<T> Rows(int64_t begin, int64_t count) { return view().Rows(begin, count); }
  // All elements.
  DeviceSpan<T> span() { return {data(), rows_ * cols_}; }
  DeviceSpan<const T> span() const { return {data(), rows_ * cols_}; }
  // Elements from `offset` on as a matrix of its own, for a workspace that serves many shapes.
  DeviceView<T> Carve(int64_t offset, int64_t rows, int64_t cols) {
    return {data() + offset, rows, cols, cols};
  }

 private:
  DevicePtr<T> data() const {
    return DevicePtr<T>(reinterpret_cast<T*>(memory_->data().address()));
  }
  const std::unique_ptr<DeviceMemory> memory_;
  const int64_t rows_;
  const int64_t cols_;
};

using DeviceMatrix = DeviceBuffer<float>;

}  // namespace lwq
