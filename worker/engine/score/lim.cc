// Layer input modification (arXiv 2406.17415): a layer that turns its input more matters more. The
// last layer is scored on its raw output; the paper's code saw it after the final norm, which makes
// it look more important than it is. `reverse` is the same order upside down, a baseline.
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

absl::StatusOr<double> ScoreLim(const LayerEvidence& evidence) { return -evidence.mean_cosine; }
absl::StatusOr<double> ScoreReverse(const LayerEvidence& evidence) { return evidence.mean_cosine; }

}  // namespace

extern const ScorerDef lim_scorer;
const ScorerDef lim_scorer = {
    .name = "lim",
    .help = "layer input modification: minus the mean cosine of a layer's input and output",
    .needs_calibration = true,
    .needs_quantized = false,
    .gives_costs = false,
    .score_layer = &ScoreLim};

extern const ScorerDef reverse_scorer;
const ScorerDef reverse_scorer = {.name = "reverse",
                                  .help = "baseline: the order of lim upside down",
                                  .needs_calibration = true,
                                  .needs_quantized = false,
                                  .gives_costs = false,
                                  .score_layer = &ScoreReverse};

}  // namespace lwq
