// Which of a layer's inputs a linear is fitted to. An expert that few tokens reach would be fitted to
// those few, and would be wrong in all directions that they do not have.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "worker/engine/evidence/evidence.h"
#include "worker/engine/model/layer_spec.h"

namespace lwq {

// An expert is starved where fewer tokens came to its input than this share of the input's features:
// then most directions of that space have no evidence of their own.
inline constexpr double kStarvedShare = 0.25;

struct InputEvidence {
  const InputSpec* input = nullptr;  // whose statistics to take; null: none, round to nearest
  int64_t num_tokens = 0;            // that they are sums over
  std::string note;                  // for the report; empty where an input stands for itself
};

// Of an input of `layer`. Starved experts take what all tokens of the layer make of the same input
// (the experts' shares of one space, which they all read), or where there is no such thing, behind
// their own gates, nothing. Errors: those of LayerEvidence::Value.
absl::StatusOr<InputEvidence> EvidenceFor(const LayerSpec& layer, const InputSpec& input,
                                          const LayerEvidence& evidence);

}  // namespace lwq
