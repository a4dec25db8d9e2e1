// Relative weight error t^2 (methods 8.2): the squared error of a unit's weights over their
// squares. Needs no data, and therefore does not know which errors reach the output.
#include "base/status_macros.h"
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

absl::StatusOr<UnitCosts> WeightErrors(const UnitCostRequest& request) {
  UnitCosts error = ZeroCosts(request), weight = error;
  LWQ_RETURN_IF_ERROR(ForEachError(request, [&](const LinearError& e) {
    const size_t f = static_cast<size_t>(e.format);
    error[e.unit][f] += SumOfSquares(e.error);
    weight[e.unit][f] += SumOfSquares(e.weight);
    return absl::OkStatus();
  }));
  return Quotients(error, weight);
}

}  // namespace

extern const ScorerDef weight_error_scorer;
const ScorerDef weight_error_scorer = {
    .name = "weight-error",
    .help = "the squared error of a unit's weights over their squares, for every format",
    .needs_quantized = true,
    .unit_costs = &WeightErrors,
    .measures_all_formats = true};

}  // namespace lwq
