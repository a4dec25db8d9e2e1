// The config.json of a compressed-tensors artifact: the source's, with what the plan changes.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/artifact/artifact_writer.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/plan/kept_layers.h"

namespace lwq {

// The source's spec with the layers that `layers` names, which keep the source's names: what computes
// a plan from the source's weights.
DecoderSpec WithLayers(DecoderSpec spec, absl::Span<const int> layers);

// `config` of a model of `source`, for the layers `kept` of it: their number, and which of them have a
// window, where that differs. INVALID_ARGUMENT "CONFIG_INVALID".
absl::StatusOr<std::string> ConfigOfLayers(absl::string_view config, const DecoderSpec& source,
                                           absl::Span<const int> kept);

// The text of the artifact's config.json. Errors: those of reading the source's.
absl::StatusOr<std::string> PlannedConfig(const ArtifactPlan& plan, const KeptModel& kept);

}  // namespace lwq
