// The "quantization_config" of an artifact's config.json: which module is stored at which width.
// docs/formats/compressed_tensors.md.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/plan/artifact_layout.h"

namespace lwq {

// The dictionary as compact JSON. Targets are disjoint anchored patterns that match a linear under
// its own name and under the name that inference engines give to the fused one; every dense linear
// is in "ignore". "" when every unit is dense.
std::string QuantizationConfigJson(const ModelInventory& model, const Plan& plan);

// The source's config.json with the dictionary put in (or, when every unit is dense, none); all
// other keys as they were, in their order. INVALID_ARGUMENT "CONFIG_INVALID".
absl::StatusOr<std::string> ArtifactConfigJson(absl::string_view source_config,
                                               const ModelInventory& model, const Plan& plan);

// Accepts the quantization_config of a config.json that this build can read: pack-quantized integer
// weights without quantized activations or stored act-order. Returns the formats its groups
// declare; an empty list when config.json has no quantization_config. INVALID_ARGUMENT
// "QUANT_METHOD_UNSUPPORTED" says what was found and what is read.
absl::StatusOr<std::vector<const WeightFormat*>> ReadQuantizationConfig(
    absl::string_view config_json, absl::string_view where);

}  // namespace lwq
