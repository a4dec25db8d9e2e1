// Which tensors a compressed-tensors pack-quantized artifact has under a plan, and so its exact
// size. Layout facts: docs/formats/compressed_tensors.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "worker/engine/format/weight_format.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

// A choice for a model: how each unit of the inventory is stored, in the inventory's order. Null:
// the unit is absent, and so are all units of its layer; the layers that are kept close ranks.
using Plan = std::vector<const WeightFormat*>;

// The tensors of one linear under a format: `weight` when dense; on a grid weight_packed (its
// codes), weight_scale, weight_shape I64 [2] and, with zero points, weight_zero_point. Of GGUF
// blocks they are `weight`.
std::vector<TensorSpec> LinearTensors(const LinearShape& linear, const WeightFormat& format,
                                      DType weight_dtype);

// What an artifact stores for the linears of `unit`, container tensors such as weight_shape
// included: what a bits-per-weight budget counts. 0 when absent.
int64_t UnitPayloadBytes(const AllocationUnit& unit, const WeightFormat* format,
                         DType weight_dtype);

// The files of a compressed-tensors artifact of `plan`, to the byte.
CheckpointLayout LayOutArtifact(const ModelInventory& model, const Plan& plan,
                                int64_t max_shard_bytes);

}  // namespace lwq
