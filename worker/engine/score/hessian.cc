// Mean trace of the Hessian times squared weight error (HAWQ-V2, methods 8.2), with the Hessian of
// the linear's own squared output error: the second moments of what it reads. Its trace over its
// size is the mean square of the input's channels.
#include "base/status_macros.h"
#include "worker/engine/evidence/channel_statistics.h"
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

constexpr absl::string_view kEvidence[] = {"channel-statistics", "layer-cosine"};

absl::StatusOr<double> MeanTrace(const UnitCostRequest& request, const LinearError& error) {
  const DecoderSpec& model = request.source->spec();
  // What it "reads" is a one and zeros otherwise, as many as it has rows.
  if (model.OnlyLookedUp(request.place)) {
    return 1.0 / static_cast<double>(error.linear->out_features);
  }
  const InputSpec& spec = model.at(request.place).inputs[error.input];
  LWQ_ASSIGN_OR_RETURN(const Matrix table,
                       request.evidence->Table(kEvidence[0], spec, kNumChannelRows));
  double sum = 0;
  for (int64_t c = 0; c < table.cols(); ++c) sum += table.Row(kMeanSquare)[c];
  return sum / static_cast<double>(table.cols());
}

absl::StatusOr<UnitCosts> HessianCosts(const UnitCostRequest& request) {
  UnitCosts costs = ZeroCosts(request);
  LWQ_RETURN_IF_ERROR(ForEachError(request, [&](const LinearError& e) -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const double trace, MeanTrace(request, e));
    costs[e.unit][static_cast<size_t>(e.format)] += trace * SumOfSquares(e.error);
    return absl::OkStatus();
  }));
  return costs;
}

}  // namespace

extern const ScorerDef hessian_scorer;
const ScorerDef hessian_scorer = {
    .name = "hessian",
    .help = "mean square of a unit's inputs times the squared error of its weights",
    .evidence = kEvidence,
    .needs_quantized = true,
    .unit_costs = &HessianCosts,
    .measures_all_formats = true,
    .costs_lookups = true};

}  // namespace lwq
