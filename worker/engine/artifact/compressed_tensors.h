// A quantized linear to and from the tensors that compressed-tensors' pack-quantized format stores
// for it. docs/formats/compressed_tensors.md.
#pragma once

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/format/weight_format.h"

namespace lwq {

// Finds a tensor by its full name.
using TensorLookup = absl::FunctionRef<absl::StatusOr<TensorView>(absl::string_view name)>;

// A stored linear, its tensors checked against each other, its format found from their shapes
// (docs/formats/compressed_tensors.md says why that is unambiguous; one group per row counts as
// the row). Borrows the tensors. `lookup` answers NOT_FOUND for a tensor that is not there. Errors:
// what lookup says; DATA_LOSS "PACKED_SHAPE" naming the tensor, found and expected; UNIMPLEMENTED
// "QUANT_FORMAT_UNSUPPORTED" for stored act-order.
absl::StatusOr<StoredLinear> FindStoredLinear(absl::string_view module, TensorLookup lookup);

// Whether linears of `declared` are stored as `found`: a group that is the whole row counts as the
// row.
bool SameStorage(const WeightFormat& declared, const StoredLinear& found);

// The content of weight_shape: out_features and in_features as two little-endian I64.
std::string WeightShapeBytes(int64_t out_features, int64_t in_features);

}  // namespace lwq
