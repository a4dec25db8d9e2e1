// Layer input modification (arXiv 2406.17415): a layer that turns its input more matters more. The
// last layer is scored on its raw output; the paper's code saw it after the final norm, which makes
// it look more important than it is. `reverse` is the same order upside down, a baseline.
#include "base/status_macros.h"
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

constexpr absl::string_view kEvidence[] = {"layer-cosine"};

absl::StatusOr<double> ScoreReverse(const ScoredLayer& layer) {
  return layer.evidence->Value(kEvidence[0]);
}

absl::StatusOr<double> ScoreLim(const ScoredLayer& layer) {
  LWQ_ASSIGN_OR_RETURN(const double cosine, ScoreReverse(layer));
  return -cosine;
}

}  // namespace

extern const ScorerDef lim_scorer;
const ScorerDef lim_scorer = {
    .name = "lim",
    .help = "layer input modification: minus the mean cosine of a layer's input and output",
    .evidence = kEvidence,
    .score_layer = &ScoreLim,
    .is_baseline = true};

extern const ScorerDef reverse_scorer;
const ScorerDef reverse_scorer = {.name = "reverse",
                                  .help = "baseline: the order of lim upside down",
                                  .evidence = kEvidence,
                                  .score_layer = &ScoreReverse};

}  // namespace lwq
