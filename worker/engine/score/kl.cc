// Unit-swap KL: each unit is put into the source model alone, quantized, and the divergence of the
// next-token distributions over held-out text is its cost. The work is in swap_kl.h.
//
// `kl` measures two formats of each unit and follows the quantizer's own errors to the others
// (cost_curve.h); `kl-full` measures every format.
#include "worker/engine/score/scorer.h"
#include "worker/engine/score/swap_kl.h"

namespace lwq {
namespace {

constexpr absl::string_view kEvidence[] = {"layer-cosine"};  // for the plans to beat

}  // namespace

extern const ScorerDef kl_scorer;
const ScorerDef kl_scorer = {
    .name = "kl",
    .help = "mean KL divergence from the source with one unit quantized; two formats are measured",
    .evidence = kEvidence,
    .needs_hidden_states = true,
    .needs_quantized = true,
    .unit_costs = &SwapKl};

extern const ScorerDef kl_full_scorer;
const ScorerDef kl_full_scorer = {
    .name = "kl-full",
    .help = "mean KL divergence from the source with one unit quantized, in every format",
    .evidence = kEvidence,
    .needs_hidden_states = true,
    .needs_quantized = true,
    .unit_costs = &SwapKl,
    .measures_all_formats = true};

}  // namespace lwq
