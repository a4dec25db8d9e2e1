// Baseline: the last layers matter most.
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

absl::StatusOr<double> ScoreLast(const ScoredLayer& layer) { return layer.layer; }

}  // namespace

extern const ScorerDef last_scorer;
const ScorerDef last_scorer = {.name = "last",
                               .help = "baseline: the later a layer, the more it matters",
                               .score_layer = &ScoreLast};

}  // namespace lwq
