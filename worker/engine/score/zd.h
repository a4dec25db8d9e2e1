// The z-score distribution of a layer's weights.
#pragma once

#include "absl/status/statusor.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/weight_source.h"

namespace lwq {

// The share of the layer's linear weights with (w - mean) / sigma > 1, mean and sigma over all of
// its linears together, in F64; norms and biases are left out. 0 when all weights are equal. Reads
// every linear twice and holds one at a time.
absl::StatusOr<double> ShareAboveOneSigma(const DecoderSpec& spec, const WeightSource& weights,
                                          int layer);

}  // namespace lwq
