// Device memory that is host memory: what the CPU and the reference device hand out.
#pragma once

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/device/device.h"

namespace lwq {

class HostMatrix : public DeviceMatrix {
 public:
  // RESOURCE_EXHAUSTED when there is no memory, INVALID_ARGUMENT for sizes below 0 or past 2^40.
  static absl::StatusOr<std::unique_ptr<DeviceMatrix>> Create(int64_t rows, int64_t cols);

  MatrixView view() override { return matrix_.view(); }

 private:
  explicit HostMatrix(Matrix matrix) : matrix_(std::move(matrix)) {}
  Matrix matrix_;
};

// Copies row by row; INVALID_ARGUMENT when the shapes differ.
absl::Status CopyHostMatrix(ConstMatrixView from, MatrixView to);

}  // namespace lwq
