// Weights of things that are partly quantized, dequantized to F32 as they are read: an artifact
// directory, or a dense checkpoint with some linears replaced by unit blobs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "worker/engine/artifact/unit_blob.h"
#include "worker/engine/model/layer_edits.h"
#include "worker/engine/model/weight_source.h"
#include "worker/engine/plan/artifact_layout.h"

namespace lwq {

// Opens a model directory, dense, compressed-tensors pack-quantized or GPTQ's, by the
// quantization_config of its config.json. What it returns owns its files. INVALID_ARGUMENT
// "QUANT_METHOD_UNSUPPORTED"; DATA_LOSS "CONFIG_MISMATCH" when a linear is stored in a format that
// the config does not declare; otherwise as Checkpoint::Open.
absl::StatusOr<std::unique_ptr<WeightSource>> OpenWeights(const std::string& directory);

// `base` with the linears named in `replaced` (by module) in their place. Borrows all.
std::unique_ptr<WeightSource> MakeOverlayWeights(
    const WeightSource* base, absl::flat_hash_map<std::string, StoredLinear> replaced);

// The overlay that a plan makes, from blobs that hold what it needs, over what `edits` (of the layers
// that the method edited, or null) make of `base`.
absl::StatusOr<std::unique_ptr<WeightSource>> MakePlanWeights(const WeightSource* base,
                                                              const ModelInventory& model,
                                                              const Plan& plan, const BlobSet& blobs,
                                                              const LayerEdits* edits = nullptr);

}  // namespace lwq
