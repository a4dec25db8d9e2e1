// Scores one layer: a rank from what is known of it, or the measured damage of each of its units in
// each format.
#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/load_stored.h"
#include "worker/engine/score/cost_curve.h"
#include "worker/engine/score/scorer.h"
#include "worker/engine/score/swap_kl.h"
#include "worker/engine/tensor/mapped_matrix.h"
#include "worker/runner/artifact_input.h"

namespace lwq {
namespace {

// Bounds the hidden states of the candidates; part of the result's last bits, so a constant.
constexpr int64_t kMaxStateBytes = int64_t{192} << 20;

// The calibrate task's mean cosine of `layer`.
absl::StatusOr<double> CosineOf(const v1::Lease& lease, int layer) {
  for (const v1::TaskInput& input : lease.inputs()) {
    const v1::CalibrateResult& result = input.output().calibrate();
    const int index = layer - input.layer();
    if (input.role() == "calibrate" && index >= 0 && index < result.layer_cosine_size()) {
      return result.layer_cosine(index);
    }
  }
  return absl::InternalError(absl::StrCat("leased without the calibration of layer ", layer));
}

absl::StatusOr<double> ScoreLayer(const TaskContext& context, const v1::ScoreTask& task,
                                  const ScorerDef& scorer, const OpenedModel& model) {
  LayerEvidence evidence;
  evidence.spec = &model.spec;
  evidence.weights = model.weights.get();
  evidence.layer = task.layer();
  evidence.seed = task.seed();
  if (scorer.needs_calibration) {
    LWQ_ASSIGN_OR_RETURN(evidence.mean_cosine, CosineOf(*context.lease, task.layer()));
  }
  return scorer.score_layer(evidence);
}

absl::StatusOr<AllocationUnit> UnitOf(const ModelInventory& inventory, const std::string& name) {
  for (const AllocationUnit& unit : inventory.units) {
    if (unit.name == name) return unit;
  }
  return InvalidFailure("PLAN_MISMATCH", absl::StrCat("the model has no unit ", name));
}

// One unit's blobs, the formats that are measured, and how the others follow from those.
struct ScoredUnit {
  AllocationUnit unit;
  std::vector<std::string> formats;
  std::vector<double> errors;  // of each format, from the quantizer's report; 0: not known
  std::vector<size_t> measured;
  std::vector<std::unique_ptr<UnitBlob>> blobs;  // of the measured formats
};

// What the quantizer left: the squared output error where it knows the inputs, else the weights'.
double ErrorOf(const v1::Lease& lease, const std::string& unit, const std::string& format) {
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
    LWQ_ASSIGN_OR_RETURN(unit.unit, UnitOf(inventory, wanted.unit()));
    unit.formats.assign(wanted.formats().begin(), wanted.formats().end());
    for (const std::string& format : unit.formats) {
      unit.errors.push_back(ErrorOf(*context.lease, wanted.unit(), format));
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

absl::Status MeasureCosts(const TaskContext& context, const v1::ScoreTask& task,
                          const ScorerDef& scorer, const OpenedModel& model,
                          v1::ScoreResult& result) {
  LWQ_ASSIGN_OR_RETURN(ComputeType compute, ParseComputeType(task.recipe().compute()));
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(model.spec, model.weights.get(), context.device, compute));
  LWQ_ASSIGN_OR_RETURN(const TokenBatch text, LoadCalibration(context, task.model().directory(),
                                                              model.spec, task.calibration()));
  const HeldOut held_out(text, task.calibration().num_tokens(), task.held_out());
  const HeldOutPart part = held_out.Part(HeldOutUse::kScore);
  const int64_t num_tokens = part.batch.num_tokens();
  const std::string scratch = context.blobs->ScratchDirectory();
  const int64_t hidden_size = model.spec.hidden_size;
  LWQ_ASSIGN_OR_RETURN(MappedMatrix input, MappedMatrix::Create(scratch, num_tokens, hidden_size));
  LWQ_ASSIGN_OR_RETURN(MappedMatrix final, MappedMatrix::Create(scratch, num_tokens, hidden_size));
  const Place place = PlaceOfTask(task.layer());
  if (place.in_layer()) {
    LWQ_ASSIGN_OR_RETURN(std::string path,
                         FetchInputBlob(context, "calibrate", HiddenBlobName(place.layer)));
    LWQ_RETURN_IF_ERROR(ReadRowsBlob(path, num_tokens, 0, input.view()));
  }
  LWQ_ASSIGN_OR_RETURN(std::string path, FetchInputBlob(context, "calibrate",
                                                        HiddenBlobName(model.spec.num_layers())));
  LWQ_RETURN_IF_ERROR(
      ReadRowsBlob(path, held_out.all().num_tokens(), part.first_row, final.view()));

  LWQ_ASSIGN_OR_RETURN(const std::vector<ScoredUnit> units,
                       OpenUnits(context, task, model.inventory, scorer.measures_all_formats));
  SwapKlRequest request;
  request.place = place;
  for (const ScoredUnit& unit : units) {
    request.units.push_back(unit.unit);
    request.num_formats.push_back(static_cast<int>(unit.measured.size()));
  }
  request.replacement = [&](size_t unit, const LinearShape& linear, int format,
                            DeviceView<float> weight) -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const StoredLinear stored,
                         units[unit].blobs[static_cast<size_t>(format)]->Find(linear.module));
    return LoadStored(linear.module, stored, context.device, weight);
  };
  request.batch = &part.batch;
  request.layer_input = input.view();
  request.source_output = final.view();
  request.max_state_bytes = kMaxStateBytes;
  request.progress = [&](double done) {
    return context.progress(done, absl::StrCat("layer ", task.layer()));
  };
  LWQ_ASSIGN_OR_RETURN(std::vector<std::vector<double>> costs, SwapKl(*decoder, request));
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
  return absl::OkStatus();
}

// What the scorers that only rank say of the layer, where they need nothing but what is there: the
// plans that they lead to are what a better one has to beat.
absl::Status AddRankings(const TaskContext& context, const v1::ScoreTask& task,
                         const OpenedModel& model, v1::ScoreResult& result) {
  if (task.layer() < 0) return absl::OkStatus();
  for (const char* name : {"lim", "zd"}) {
    LWQ_ASSIGN_OR_RETURN(const ScorerDef* scorer, FindScorer(name));
    LWQ_ASSIGN_OR_RETURN(const double score, ScoreLayer(context, task, *scorer, model));
    (*result.mutable_rankings())[name] = score;
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
  if (scorer->gives_costs) {
    LWQ_RETURN_IF_ERROR(MeasureCosts(context, task, *scorer, model, result));
    LWQ_RETURN_IF_ERROR(AddRankings(context, task, model, result));
    return output;
  }
  LWQ_ASSIGN_OR_RETURN(const double score, ScoreLayer(context, task, *scorer, model));
  result.set_layer_score(score);
  return output;
}

}  // namespace lwq
