// Which tensors a compressed-tensors pack-quantized artifact has under a choice of widths, and so its
// exact size. Layout facts: docs/formats/compressed_tensors.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

// How one unit is stored. bits 16: dense, as in the source.
struct UnitFormat {
  int bits = 16;
  int64_t group_size = 128;  // 0: one scale a row (strategy "channel")
  bool symmetric = true;

  bool dense() const { return bits == 16; }
  friend bool operator==(const UnitFormat&, const UnitFormat&) = default;
};

// Scales are stored in the source's 16-bit dtype; for F32 sources in F16 (they are snapped so that
// every one of them is exact in either).
DType ScaleDType(DType weight_dtype);

// The tensors of one linear under a format: `weight` when dense; otherwise weight_packed I32
// [out, ceil(in * bits / 32)], weight_scale [out, groups], weight_shape I64 [2] and, when asymmetric,
// weight_zero_point I32 [ceil(out * bits / 32), groups].
std::vector<TensorSpec> LinearTensors(const LinearShape& linear, const UnitFormat& format,
                                      DType weight_dtype);

// INVALID_ARGUMENT "GROUP_SIZE" naming the linear when the group size does not divide in_features,
// or when a dimension is not a multiple of 32.
absl::Status CheckFormat(const AllocationUnit& unit, const UnitFormat& format);

// Bytes of codes, scales, zero points and shape tensors (what a bits-per-weight budget counts), and
// the bits per weight they make over all quantizable weights.
int64_t UnitPayloadBytes(const AllocationUnit& unit, const UnitFormat& format, DType weight_dtype);
double BitsPerWeight(const ModelInventory& model, const std::vector<UnitFormat>& formats);

// formats[i] is of model.units[i].
CheckpointLayout LayOutArtifact(const ModelInventory& model, const std::vector<UnitFormat>& formats,
                                int64_t max_shard_bytes);

}  // namespace lwq
