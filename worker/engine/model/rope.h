// The frequencies of rotary embeddings. Formulas: those of transformers' modeling_rope_utils.py.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/engine/model/layer_spec.h"

namespace lwq {

// Two types depend on how long a sequence is: dynamic stretches all waves by its length once that
// passes the trained one, longrope then takes other factors. Sequences of which this length is
// equal are rotated alike; 0 where the length does not matter. It grows with `length`.
int64_t RopeLength(const RopeSpec& rope, int64_t length);

// One for each pair of a head; `length` as RopeLength gives it.
std::vector<float> InverseFrequencies(const RopeSpec& rope, int head_dim, int64_t length);

}  // namespace lwq
