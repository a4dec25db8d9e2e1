// A scorer says how much each layer matters, from evidence that the runner gathers while the model
// streams by; it reads no files and runs no layers.
//
// Adding one: score/<name>.cc that defines a ScorerDef, and a line in scorers.def.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/device/device.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/weight_source.h"

namespace lwq {

// What is known of one layer when it is scored.
struct LayerEvidence {
  const DecoderSpec* spec = nullptr;
  const WeightSource* weights = nullptr;  // the source model's
  int layer = 0;
  // Mean over the calibration tokens of the cosine between the layer's input and its raw output
  // (before any final norm); set when the scorer needs calibration.
  double mean_cosine = 0;
  uint64_t seed = 0;  // for scorers that draw
};

struct ScorerDef {
  absl::string_view name;
  absl::string_view help;  // one line
  bool needs_calibration;  // hidden states of calibration text go through every layer
  bool needs_quantized;    // every unit at every width, dequantized: the scorer swaps them in
  bool gives_costs;        // costs per unit and format (swap_kl.h), and no scores
  // Higher = more important. Null when the scorer gives costs.
  absl::StatusOr<double> (*score_layer)(const LayerEvidence& evidence);
  // Of one that gives costs: each format of a unit is measured. Else the others follow from the
  // errors that the quantizer reported (cost_curve.h).
  bool measures_all_formats = false;
};

// Sorted by name.
absl::Span<const ScorerDef* const> Scorers();
// INVALID_ARGUMENT "SCORER_UNKNOWN" lists the names.
absl::StatusOr<const ScorerDef*> FindScorer(absl::string_view name);

}  // namespace lwq
