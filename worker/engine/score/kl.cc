// Unit-swap KL: each unit at each width is put into the source model alone, and the divergence of
// the next-token distributions over calibration text is its cost. The work is in swap_kl.h.
#include "worker/engine/score/scorer.h"

namespace lwq {

extern const ScorerDef kl_scorer;
const ScorerDef kl_scorer = {
    .name = "kl",
    .help = "mean KL divergence from the source with one unit quantized, at every width",
    .needs_calibration = true,
    .needs_quantized = true,
    .gives_costs = true,
    .score_layer = nullptr};

}  // namespace lwq
