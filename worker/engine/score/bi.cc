// Block influence (ShortGPT, arXiv 2403.03853): one minus the mean cosine of a layer's input and
// output. The order is lim's; the value is what that paper's tables show.
#include "base/status_macros.h"
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

constexpr absl::string_view kEvidence[] = {"layer-cosine"};

absl::StatusOr<double> ScoreBi(const ScoredLayer& layer) {
  LWQ_ASSIGN_OR_RETURN(const double cosine, layer.evidence->Value(kEvidence[0]));
  return 1 - cosine;
}

}  // namespace

extern const ScorerDef bi_scorer;
const ScorerDef bi_scorer = {
    .name = "bi",
    .help = "block influence: one minus the mean cosine of a layer's input and output",
    .evidence = kEvidence,
    .score_layer = &ScoreBi};

}  // namespace lwq
