// How a stored tensor becomes rows of floats where it is not simply floats one after the other.
#pragma once

#include <cstdint>
#include <string>

#include "worker/engine/tensor/matrix.h"
#include "worker/engine/tensor/tensor_view.h"

namespace lwq {

// Immutable, thread-safe.
class RowCoding {
 public:
  virtual ~RowCoding() = default;
  // Fills `out` with rows [first_row, first_row + out.rows) of a tensor that has this coding; a
  // vector is one row. The caller has checked that the tensor has them and that out.cols is their
  // length.
  virtual void Read(const TensorView& tensor, int64_t first_row, MatrixView out) const = 0;
  // Differs where the same bytes would give other rows; for digests.
  virtual std::string Id() const = 0;
};

}  // namespace lwq
