// Reads rotary embeddings from config.json, in the spellings of transformers 4 ("rope_scaling"
// beside a top-level rope_theta) and 5 (all together in "rope_parameters").
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "worker/engine/model/config_reader.h"
#include "worker/engine/model/layer_spec.h"

namespace lwq {

// What the fields of a rotary embedding are read against.
struct RopeDefaults {
  double theta = 10000;
  double rotated_part = 1;
  int64_t max_positions = 0;
  int head_dim = 0;
  // Phi-3: positions of the first training where config.json does not say; only a part of each head
  // may be rotated; and the only type besides the default is longrope, by any of its names.
  std::optional<int64_t> original_max_positions;
  bool phi3 = false;
};

// One rotary embedding for all layers.
absl::StatusOr<RopeSpec> ReadRope(const ConfigReader& config, RopeDefaults defaults);

// The same from the object that has the fields of one embedding.
absl::StatusOr<RopeSpec> ReadRopeParameters(const ConfigReader& parameters,
                                            const RopeDefaults& defaults);

}  // namespace lwq
