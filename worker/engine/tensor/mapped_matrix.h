// An F32 matrix in a scratch file: hidden states of many tokens live here, so that they count as
// file cache and not as anonymous memory, and spill to disk by themselves when memory is short.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq {

// Not thread-safe. The file is unlinked at once and its space freed when the object goes.
class MappedMatrix {
 public:
  // Zero-filled. RESOURCE_EXHAUSTED when the disk is full.
  static absl::StatusOr<MappedMatrix> Create(const std::string& directory, int64_t rows,
                                             int64_t cols);
  MappedMatrix(MappedMatrix&& other) noexcept;
  MappedMatrix& operator=(MappedMatrix&&) = delete;
  ~MappedMatrix();

  int64_t rows() const { return view_.rows; }
  int64_t cols() const { return view_.cols; }
  MatrixView view() { return view_; }
  ConstMatrixView view() const { return view_; }

 private:
  explicit MappedMatrix(MatrixView view) : view_(view) {}
  MatrixView view_;
};

}  // namespace lwq
