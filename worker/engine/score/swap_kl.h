// What quantizing one unit alone does to the model's predictions: the mean KL divergence from the
// source, for every unit of a layer at every format. Forward passes only: the layer's clean input
// is given, each candidate is the source with one unit exchanged, and all candidates go through the
// remaining layers together, so that each of those is loaded once per chunk of text.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/score/unit_costs.h"

namespace lwq {

// cost[u][f]: mean over all tokens of KL(source || source with unit u at format f), in nats, summed
// in F64 in token order. INVALID_ARGUMENT for shapes that do not fit or a linear that is not the
// layer's.
absl::StatusOr<UnitCosts> SwapKl(const UnitCostRequest& request);

}  // namespace lwq
