// A scorer says how much each layer matters, or what each unit costs in each format, from evidence
// that the runner gathers while the model streams by and from the quantized units, if it asks for
// them; it reads no files.
//
// Adding one: score/<name>.cc that defines a ScorerDef, and a line in scorers.def.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/option.h"
#include "worker/engine/evidence/evidence.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/weight_source.h"
#include "worker/engine/score/unit_costs.h"

namespace lwq {

// What is known of one layer when it is ranked.
struct ScoredLayer {
  const DecoderSpec* spec = nullptr;
  const WeightSource* weights = nullptr;  // the source model's
  int layer = 0;
  const LayerEvidence* evidence = nullptr;  // what the scorer declared
  OptionValues options;                     // the scorer's
};

struct ScorerDef {
  absl::string_view name;
  absl::string_view help;  // one line
  // What calibration has to collect for it (evidence/collectors.def).
  absl::Span<const absl::string_view> evidence = {};
  // All that can be set of it, sorted by name.
  absl::Span<const OptionDef> options = {};
  // The source's hidden states on the scoring text, of each layer and at the end.
  bool needs_hidden_states = false;
  // Every unit in every format, dequantized: for scorers that give costs.
  bool needs_quantized = false;
  // One of the two. A layer's importance (higher = more important), or the costs of units.
  absl::StatusOr<double> (*score_layer)(const ScoredLayer& layer) = nullptr;
  absl::StatusOr<UnitCosts> (*unit_costs)(const UnitCostRequest& request) = nullptr;
  // Of one that gives costs: each format of a unit is measured. Else the others follow from the
  // errors that the quantizer reported (cost_curve.h).
  bool measures_all_formats = false;
  // Of one that gives costs without hidden states: it can tell those of a table that is only looked
  // up. Of one that cannot, weight-error's stand in.
  bool costs_lookups = false;
  // Of one that ranks: the plans that its order leads to are among those that a better one has to
  // beat, so it also runs beside the scorers that give costs, where they declared its evidence.
  bool is_baseline = false;

  bool gives_costs() const { return unit_costs != nullptr; }
  bool needs_calibration() const { return needs_hidden_states || !evidence.empty(); }
};

// Sorted by name.
absl::Span<const ScorerDef* const> Scorers();
// INVALID_ARGUMENT "SCORER_UNKNOWN" lists the names.
absl::StatusOr<const ScorerDef*> FindScorer(absl::string_view name);

}  // namespace lwq
