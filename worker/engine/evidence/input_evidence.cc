#include "worker/engine/evidence/input_evidence.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/evidence/collector.h"

namespace lwq {

absl::StatusOr<InputEvidence> EvidenceFor(const LayerSpec& layer, const InputSpec& input,
                                          const LayerEvidence& evidence) {
  if (!input.routed) return InputEvidence{&input, evidence.num_tokens(), ""};
  LWQ_ASSIGN_OR_RETURN(const double tokens, evidence.Value(RoutedTokensName(input)));
  if (tokens >= kStarvedShare * static_cast<double>(input.features)) {
    return InputEvidence{&input, static_cast<int64_t>(tokens), ""};
  }
  const std::string starved = absl::StrCat("starved expert: ", static_cast<int64_t>(tokens),
                                           " tokens for ", input.features, " features, ");
  if (!input.pooled.has_value()) {
    return InputEvidence{nullptr, 0, absl::StrCat(starved, "rounded to nearest")};
  }
  return InputEvidence{&layer.inputs[*input.pooled], evidence.num_tokens(),
                       absl::StrCat(starved, "fitted to all tokens of the layer")};
}

}  // namespace lwq
