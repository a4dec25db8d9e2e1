// Which tensors an artifact of safetensors has under a plan, and so its exact size. What the tensors
// of a linear are the model's kind of artifact says (artifact_format.h).
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

// The tensors of one linear of `model` under a format, as its kind of artifact stores them; one,
// `weight`, when dense.
std::vector<TensorSpec> LinearTensors(const ModelInventory& model, const LinearShape& linear,
                                      const WeightFormat& format);

// What an artifact stores for the linears of `unit`, container tensors such as weight_shape
// included: what a bits-per-weight budget counts. 0 when absent.
int64_t UnitPayloadBytes(const ModelInventory& model, const AllocationUnit& unit,
                         const WeightFormat* format);

// The files of an artifact of safetensors of `plan`, to the byte.
CheckpointLayout LayOutArtifact(const ModelInventory& model, const Plan& plan,
                                int64_t max_shard_bytes);

}  // namespace lwq
