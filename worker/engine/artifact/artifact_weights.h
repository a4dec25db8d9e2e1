// Weights of things that are partly quantized, dequantized to F32 as they are read: an artifact
// directory, or a dense checkpoint with some linears replaced by layer blobs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "worker/engine/artifact/layer_blob.h"
#include "worker/engine/model/weight_source.h"

namespace lwq {

// Opens a model directory, dense or an lwq / compressed-tensors pack-quantized artifact, by the
// quantization_config of its config.json. What it returns owns its files. INVALID_ARGUMENT
// "QUANT_METHOD_UNSUPPORTED"; DATA_LOSS "CONFIG_MISMATCH" when a linear is stored in a format that
// the config does not declare; otherwise as Checkpoint::Open.
absl::StatusOr<std::unique_ptr<WeightSource>> OpenWeights(const std::string& directory);

// `base` with the linears named in `replaced` (module to blob) read from their blobs. Borrows all.
// NOT_FOUND "TENSOR_MISSING" when a blob does not hold its module.
absl::StatusOr<std::unique_ptr<WeightSource>> MakeOverlayWeights(
    const WeightSource* base, absl::flat_hash_map<std::string, const LayerBlob*> replaced);

// The overlay a plan makes: formats[i] is of model.units[i].
absl::StatusOr<std::unique_ptr<WeightSource>> MakePlanWeights(
    const WeightSource* base, const ModelInventory& model, const std::vector<UnitFormat>& formats,
    const BlobSet& blobs);

}  // namespace lwq
