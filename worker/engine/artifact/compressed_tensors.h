// One quantized linear to and from the tensors that compressed-tensors' pack-quantized format
// stores for it. docs/formats/compressed_tensors.md.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/plan/artifact_layout.h"
#include "worker/engine/quant/quantizer.h"
#include "worker/engine/tensor/tensor_view.h"

namespace lwq {

struct PackedTensor {
  TensorSpec spec;
  std::string bytes;  // exactly spec.size_bytes()
};

// The stored form of a linear: tensors in the order of LinearTensors().
struct PackedLinear {
  std::string module;
  std::vector<PackedTensor> tensors;
};

UnitFormat FormatOf(const GridSpec& grid);

// `weight_dtype` is the source's and decides the dtype of the scales (ScaleDType). INTERNAL
// "NOT_PACKABLE" when a code is out of its width's range, a scale is not exact in the scale dtype,
// or a zero point is not an integer in range: what is stored must be what was measured.
absl::StatusOr<PackedLinear> PackLinear(absl::string_view module, const QuantizedLinear& linear,
                                        DType weight_dtype);

// Finds a tensor by its full name.
using TensorLookup = absl::FunctionRef<absl::StatusOr<TensorView>(absl::string_view name)>;

// A stored linear, its tensors checked against each other, its width and group size found from
// their shapes (docs/formats/compressed_tensors.md says why that is unambiguous). Borrows the
// tensors.
struct StoredLinear {
  int64_t out_features = 0;
  int64_t in_features = 0;
  GridSpec grid;  // group_size 0 when there is one group a row
  TensorView packed;
  TensorView scale;
  TensorView zero_point;  // empty bytes when symmetric
};

// `lookup` answers NOT_FOUND for a tensor that is not there. Errors: what lookup says;
// DATA_LOSS "PACKED_SHAPE" naming the tensor, found and expected; UNIMPLEMENTED
// "QUANT_FORMAT_UNSUPPORTED" for stored act-order.
absl::StatusOr<StoredLinear> FindStoredLinear(absl::string_view module, TensorLookup lookup);

// Codes, scales and zeros as they were packed. INVALID_ARGUMENT "NON_FINITE_WEIGHTS" for a scale
// that is NaN or infinite.
absl::StatusOr<QuantizedLinear> UnpackLinear(absl::string_view module, const StoredLinear& stored);

// out [out_features, in_features] = scale * (code - zero), in F32, row by row: needs memory for one
// row of codes only. Errors as UnpackLinear; INVALID_ARGUMENT "CONFIG_MISMATCH" for another shape.
absl::Status DequantizeStored(absl::string_view module, const StoredLinear& stored, MatrixView out);

}  // namespace lwq
