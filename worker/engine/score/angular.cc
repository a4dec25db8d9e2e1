// Angular distance of a layer's input and output at the last token of each sequence (Gromov et al.,
// arXiv 2403.17887), for runs of one layer.
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

constexpr absl::string_view kEvidence[] = {"layer-angle"};

absl::StatusOr<double> ScoreAngular(const ScoredLayer& layer) {
  return layer.evidence->Value(kEvidence[0]);
}

}  // namespace

extern const ScorerDef angular_scorer;
const ScorerDef angular_scorer = {
    .name = "angular",
    .help = "the angle by which a layer turns the last token of a sequence, over pi",
    .evidence = kEvidence,
    .score_layer = &ScoreAngular};

}  // namespace lwq
