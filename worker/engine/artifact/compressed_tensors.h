// A quantized linear to and from the tensors that compressed-tensors stores for it: its parts as
// they are and weight_shape (pack-quantized); or, where inputs are rounded too, a byte a weight
// (int-quantized, float-quantized). docs/formats/compressed_tensors.md says why shapes and types
// tell the format; one group per row counts as the row.
#pragma once

#include <cstdint>
#include <string>

#include "worker/engine/artifact/linear_coding.h"

namespace lwq {

const LinearCoding& CompressedTensorsCoding();

// The content of weight_shape: out_features and in_features as two little-endian I64.
std::string WeightShapeBytes(int64_t out_features, int64_t in_features);

}  // namespace lwq
