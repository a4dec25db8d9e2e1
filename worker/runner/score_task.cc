// Scores one layer: a rank from what is known of it, or what each of its units costs in each
// format.
#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "records/option_records.h"
#include "records/plan_records.h"
#include "worker/engine/artifact/load_stored.h"
#include "worker/engine/model/layer_edits.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/engine/score/cost_curve.h"
#include "worker/engine/score/scorer.h"
#include "worker/engine/tensor/mapped_matrix.h"
#include "worker/runner/artifact_input.h"
#include "worker/runner/evidence_blobs.h"
#include "worker/runner/task_memory.h"

namespace lwq {
namespace {

// Bounds the hidden states of the candidates; part of the result's last bits, so a constant.
constexpr int64_t kMaxStateBytes = int64_t{192} << 20;

absl::StatusOr<double> ScoreLayer(const v1::ScoreTask& task, const ScorerDef& scorer,
                                  const OpenedModel& model, const LayerEvidence& evidence) {
  ScoredLayer layer;
  layer.spec = &model.spec;
  layer.weights = model.weights.get();
  layer.layer = task.layer();
  layer.evidence = &evidence;
  // Of a ranker beside the task's own scorer: its defaults.
  const OptionTexts given = scorer.name == task.scorer() ? TextsOf(task.options()) : OptionTexts();
  LWQ_ASSIGN_OR_RETURN(layer.options, OptionValues::Make(absl::StrCat("scorer ", scorer.name),
                                                         scorer.options, given));
  return scorer.score_layer(layer);
}

// One unit's blobs, the formats that are measured, and how the others follow from those.
struct ScoredUnit {
  AllocationUnit unit;
  std::vector<std::string> formats;
  std::vector<double> errors;  // of each format, from the quantizer's report; 0: not known
  std::vector<size_t> measured;
  std::vector<std::unique_ptr<UnitBlob>> blobs;  // of the measured formats
};

// What the quantizer left: the squared output error where it knows the inputs, else the weights'. 0
// where that does not tell what the format does: nothing in it is of inputs that are rounded too.
double ErrorOf(const v1::Lease& lease, const std::string& unit, const std::string& format,
               ActivationRule rule) {
  if (rule != ActivationRule::kNone) return 0;
  double calibrated = 0, relative = 0;
  for (const v1::TaskInput& input : lease.inputs()) {
    for (const v1::LinearReport& linear : input.output().quantize().report().linears()) {
      if (linear.unit() != unit || linear.format() != format) continue;
      calibrated += linear.calibrated_error();
      relative += linear.relative_weight_error();
    }
  }
  return calibrated > 0 ? calibrated : relative;
}

absl::StatusOr<std::vector<ScoredUnit>> OpenUnits(const TaskContext& context,
                                                  const v1::ScoreTask& task,
                                                  const ModelInventory& inventory, bool all) {
  std::vector<ScoredUnit> units;
  for (const v1::UnitFormats& wanted : task.units()) {
    ScoredUnit& unit = units.emplace_back();
    LWQ_ASSIGN_OR_RETURN(unit.unit, FindUnit(inventory, wanted.unit()));
    unit.formats.assign(wanted.formats().begin(), wanted.formats().end());
    for (const std::string& id : unit.formats) {
      LWQ_ASSIGN_OR_RETURN(const WeightFormat* format, FindWeightFormat(id));
      unit.errors.push_back(ErrorOf(*context.lease, wanted.unit(), id, format->activation_rule()));
    }
    unit.measured = FormatsToMeasure(unit.errors);
    if (all) {
      unit.measured.resize(unit.formats.size());
      std::iota(unit.measured.begin(), unit.measured.end(), size_t{0});
    }
    for (size_t f : unit.measured) {
      LWQ_ASSIGN_OR_RETURN(const WeightFormat* format, FindWeightFormat(unit.formats[f]));
      LWQ_ASSIGN_OR_RETURN(auto blob, OpenUnitBlob(context, unit.unit, format));
      unit.blobs.push_back(std::move(blob));
    }
  }
  return units;
}

// The scoring text, with the source's hidden states that calibration left.
struct ScoringText {
  TokenBatch batch;
  std::optional<MappedMatrix> input;   // of the layer; none for the head
  std::optional<MappedMatrix> output;  // of the last layer
};

// Reads `rows` of the hidden states that enter `layer`, of which `num_rows` are stored.
absl::StatusOr<MappedMatrix> ReadHidden(const TaskContext& context, const DecoderSpec& spec,
                                        int layer, int64_t num_rows, int64_t first, int64_t rows) {
  LWQ_ASSIGN_OR_RETURN(MappedMatrix hidden, MappedMatrix::Create(context.blobs->ScratchDirectory(),
                                                                 rows, spec.hidden_size));
  LWQ_ASSIGN_OR_RETURN(const std::string path,
                       FetchInputBlob(context, "calibrate", HiddenBlobName(layer)));
  LWQ_RETURN_IF_ERROR(ReadRowsBlob(path, num_rows, first, hidden.view()));
  return hidden;
}

absl::Status LoadText(const TaskContext& context, const v1::ScoreTask& task,
                      const OpenedModel& model, ScoringText& text, UnitCostRequest& request) {
  LWQ_ASSIGN_OR_RETURN(const auto all,
                       LoadCalibration(context, task.model(), model.spec, task.calibration()));
  const HeldOut held_out(*all, task.calibration().num_tokens(), task.held_out());
  HeldOutPart part = held_out.Part(HeldOutUse::kScore);
  const int64_t num_tokens = part.batch.num_tokens();
  if (request.place.in_layer()) {
    LWQ_ASSIGN_OR_RETURN(MappedMatrix input, ReadHidden(context, model.spec, request.place.layer,
                                                        num_tokens, 0, num_tokens));
    text.input.emplace(std::move(input));
    request.layer_input = text.input->view();
  }
  LWQ_ASSIGN_OR_RETURN(MappedMatrix output,
                       ReadHidden(context, model.spec, model.spec.num_layers(),
                                  held_out.all().num_tokens(), part.first_row, num_tokens));
  text.output.emplace(std::move(output));
  text.batch = std::move(part.batch);
  request.batch = &text.batch;
  request.source_output = text.output->view();
  request.max_state_bytes = kMaxStateBytes;
  request.scratch_directory = context.blobs->ScratchDirectory();
  return absl::OkStatus();
}

// By unit and measured format, where engines multiply in 8 bits.
std::vector<std::vector<ActivationRule>> RulesOf(const std::vector<ScoredUnit>& units) {
  std::vector<std::vector<ActivationRule>> rules;
  for (const ScoredUnit& unit : units) {
    rules.emplace_back();
    for (const auto& blob : unit.blobs) rules.back().push_back(blob->format()->activation_rule());
  }
  return rules;
}

bool AnyRounds(const std::vector<std::vector<ActivationRule>>& rules) {
  for (const std::vector<ActivationRule>& unit : rules) {
    for (const ActivationRule rule : unit) {
      if (rule != ActivationRule::kNone) return true;
    }
  }
  return false;
}

// The scales that a method moved into a linear taken out of it again: what it computes between the
// source's own neighbours. The other ends of the edges need not be exchanged with it.
absl::Status LoadUnscaled(absl::string_view module, const StoredLinear& stored, LinearScales scales,
                          int64_t first, Device* device, DeviceView<float> out) {
  for (float& scale : scales.rows) scale = 1 / scale;
  for (float& scale : scales.columns) scale = 1 / scale;
  Matrix host(out.rows, out.cols);
  LWQ_RETURN_IF_ERROR(CheckStoredRows(module, stored, first, out.rows, out.cols));
  LWQ_RETURN_IF_ERROR(stored.format->Dequantize(module, stored.parts, first, host.view()));
  LWQ_RETURN_IF_ERROR(ScaleRows(scales, first, host.view()));
  return device->Upload(host.view(), out);
}

void WriteCosts(const std::vector<ScoredUnit>& units, const UnitCosts& costs,
                v1::ScoreResult& result) {
  result.set_has_costs(true);
  for (size_t u = 0; u < units.size(); ++u) {
    const std::vector<double> all = CostsFromErrors(units[u].errors, units[u].measured, costs[u]);
    for (size_t f = 0; f < all.size(); ++f) {
      v1::UnitCost* cost = result.add_costs();
      cost->set_unit(units[u].unit.name);
      cost->set_format(units[u].formats[f]);
      cost->set_cost(all[f]);
    }
  }
}

absl::Status MeasureCosts(const TaskContext& context, const v1::ScoreTask& task,
                          const ScorerDef& scorer, const OpenedModel& model,
                          const LayerEvidence& evidence, v1::ScoreResult& result) {
  LWQ_ASSIGN_OR_RETURN(ComputeType compute, ParseComputeType(task.recipe().compute()));
  UnitCostRequest request;
  request.weights = model.weights.get();
  request.evidence = &evidence;
  request.place = PlaceOfRecord(task.layer());
  LWQ_ASSIGN_OR_RETURN(const std::vector<ScoredUnit> units,
                       OpenUnits(context, task, model.inventory, scorer.measures_all_formats));
  for (const ScoredUnit& unit : units) {
    request.units.push_back(unit.unit);
    request.num_formats.push_back(static_cast<int>(unit.measured.size()));
  }
  request.rules = RulesOf(units);
  LayerEdits edits;
  if (task.edited()) {
    LWQ_ASSIGN_OR_RETURN(edits, OpenEdits(context, task.layer()));
  }
  // What rounding costs inputs depends on the scales that were moved: the layer is run with them.
  const bool as_edited = scorer.needs_hidden_states && AnyRounds(request.rules);
  const auto edited = MakeEditedWeights(model.weights.get(), &edits, model.inventory.weight_dtype);
  const WeightSource* source = as_edited ? edited.get() : model.weights.get();
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       OpenDecoder(context, model.spec, source, compute, task.chunk_tokens()));
  request.source = decoder.get();
  ScoringText text;
  if (scorer.needs_hidden_states) {
    MemoryQuestion question;
    question.bf16 = compute == ComputeType::kBF16;
    UseSpareMemory(context, "score", model.inventory, question, *decoder);
    LWQ_RETURN_IF_ERROR(LoadText(context, task, model, text, request));
  }
  request.replacement = [&](size_t unit, const LinearShape& linear, int format, int64_t first,
                            DeviceView<float> weight) -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const StoredLinear stored,
                         units[unit].blobs[static_cast<size_t>(format)]->Find(linear.module));
    const auto scaled = edits.linears.find(linear.module);
    if (as_edited || scaled == edits.linears.end()) {
      return LoadStoredRows(linear.module, stored, first, context.device, weight);
    }
    return LoadUnscaled(linear.module, stored, scaled->second, first, context.device, weight);
  };
  request.progress = [&](double done) {
    return context.progress(done, absl::StrCat("layer ", task.layer()));
  };
  LWQ_ASSIGN_OR_RETURN(const UnitCosts costs, scorer.unit_costs(request));
  WriteCosts(units, costs, result);
  return absl::OkStatus();
}

bool Declares(const ScorerDef& scorer, absl::Span<const absl::string_view> evidence) {
  return std::all_of(evidence.begin(), evidence.end(), [&scorer](absl::string_view name) {
    return std::find(scorer.evidence.begin(), scorer.evidence.end(), name) != scorer.evidence.end();
  });
}

// What the baselines among the scorers say of the layer, where they need nothing but what is there.
absl::Status AddRankings(const v1::ScoreTask& task, const ScorerDef& scorer,
                         const OpenedModel& model, const LayerEvidence& evidence,
                         v1::ScoreResult& result) {
  if (!PlaceOfRecord(task.layer()).in_layer()) return absl::OkStatus();
  for (const ScorerDef* ranker : Scorers()) {
    if (!ranker->is_baseline || !Declares(scorer, ranker->evidence)) continue;
    if (ranker->name == scorer.name) continue;  // that order is the plan's own
    LWQ_ASSIGN_OR_RETURN(const double score, ScoreLayer(task, *ranker, model, evidence));
    (*result.mutable_rankings())[std::string(ranker->name)] = score;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunScore(const TaskContext& context, const v1::ScoreTask& task) {
  LWQ_ASSIGN_OR_RETURN(const ScorerDef* scorer, FindScorer(task.scorer()));
  LWQ_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(task.model()));
  v1::TaskOutput output;
  v1::ScoreResult& result = *output.mutable_score();
  result.set_layer(task.layer());
  const Place place = PlaceOfRecord(task.layer());
  if (place.in_layer() && place.layer >= model.spec.num_layers()) {
    return absl::InvalidArgumentError(
        absl::StrCat("scoring layer ", place.layer, " of a model of ", model.spec.num_layers()));
  }
  const auto evidence = OpenEvidence(&context, place);
  // A table that is only looked up has no inputs: the error of its weights stands in for theirs.
  if (model.spec.OnlyLookedUp(place) && !scorer->needs_hidden_states && !scorer->costs_lookups) {
    LWQ_ASSIGN_OR_RETURN(scorer, FindScorer("weight-error"));
  }
  if (scorer->gives_costs()) {
    LWQ_RETURN_IF_ERROR(MeasureCosts(context, task, *scorer, model, *evidence, result));
    LWQ_RETURN_IF_ERROR(AddRankings(task, *scorer, model, *evidence, result));
    return output;
  }
  LWQ_ASSIGN_OR_RETURN(const double score, ScoreLayer(task, *scorer, model, *evidence));
  result.set_layer_score(score);
  LWQ_RETURN_IF_ERROR(AddRankings(task, *scorer, model, *evidence, result));
  return output;
}

}  // namespace lwq
