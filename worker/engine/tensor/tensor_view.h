// A stored tensor as bytes: dtype, shape, data. Does not own; the file or buffer it came from must
// outlive it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "worker/engine/tensor/dtype.h"

namespace lwq {

class RowCoding;  // tensor/row_coding.h

struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;       // row-major
  absl::Span<const uint8_t> bytes;  // little-endian, exactly product(shape) * SizeOf(dtype)
  // Of a tensor that is stored otherwise: how its bytes, of whatever size, become rows of numbers
  // that `dtype` holds. Not owned; lives as long as the bytes.
  const RowCoding* coding = nullptr;

  int64_t num_elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

}  // namespace lwq
