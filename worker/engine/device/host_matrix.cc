#include "worker/engine/device/host_matrix.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "worker/engine/device/check_shapes.h"

namespace lwq {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 40;

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceMatrix>> HostMatrix::Create(int64_t rows, int64_t cols) {
  if (rows < 0 || cols < 0 || (cols > 0 && rows > kMaxElements / cols)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot make a matrix of ", rows, " x ", cols, " elements"));
  }
  Matrix matrix(rows, cols);
  if (matrix.data() == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a matrix of ", rows, " x ", cols, " F32 elements"));
  }
  return std::unique_ptr<DeviceMatrix>(new HostMatrix(std::move(matrix)));
}

absl::Status CopyHostMatrix(ConstMatrixView from, MatrixView to) {
  if (absl::Status status = CheckShape("copy's source", from, to.rows, to.cols); !status.ok()) {
    return status;
  }
  for (int64_t r = 0; r < from.rows; ++r) {
    std::memmove(to.Row(r), from.Row(r), static_cast<size_t>(from.cols) * sizeof(float));
  }
  return absl::OkStatus();
}

}  // namespace lwq
