// Baseline: the first layers matter most.
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

absl::StatusOr<double> ScoreFirst(const ScoredLayer& layer) { return -layer.layer; }

}  // namespace

extern const ScorerDef first_scorer;
const ScorerDef first_scorer = {.name = "first",
                                .help = "baseline: the earlier a layer, the more it matters",
                                .score_layer = &ScoreFirst};

}  // namespace lwq
