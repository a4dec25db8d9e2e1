// Unit-swap KL: each unit is put into the source model alone, quantized, and the divergence of the
// next-token distributions over held-out text is its cost. The work is in swap_kl.h.
//
// `kl` measures two formats of each unit and follows the quantizer's own errors to the others
// (cost_curve.h); `kl-full` measures every format.
#include "worker/engine/score/scorer.h"

namespace lwq {

extern const ScorerDef kl_scorer;
const ScorerDef kl_scorer = {
    .name = "kl",
    .help = "mean KL divergence from the source with one unit quantized; two formats are measured",
    .needs_calibration = true,
    .needs_quantized = true,
    .gives_costs = true,
    .score_layer = nullptr};

extern const ScorerDef kl_full_scorer;
const ScorerDef kl_full_scorer = {
    .name = "kl-full",
    .help = "mean KL divergence from the source with one unit quantized, in every format",
    .needs_calibration = true,
    .needs_quantized = true,
    .gives_costs = true,
    .score_layer = nullptr,
    .measures_all_formats = true};

}  // namespace lwq
