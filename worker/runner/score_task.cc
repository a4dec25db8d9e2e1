// Scores one layer: a rank from what is known of it, or the measured damage of each of its units in
// each format.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
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

absl::StatusOr<AllocationUnit> UnitOf(const ModelInventory& inventory, const std::string& name) {
  for (const AllocationUnit& unit : inventory.units) {
    if (unit.name == name) return unit;
  }
  return InvalidFailure("PLAN_MISMATCH", absl::StrCat("the model has no unit ", name));
}

absl::Status MeasureCosts(const TaskContext& context, const v1::ScoreTask& task,
                          const OpenedModel& model, v1::ScoreResult& result) {
  LWQ_ASSIGN_OR_RETURN(ComputeType compute, ParseComputeType(task.recipe().compute()));
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(model.spec, model.weights.get(), context.device, compute));
  LWQ_ASSIGN_OR_RETURN(const TokenBatch text, LoadCalibration(context, task.model().directory(),
                                                              model.spec, task.calibration()));
  const TokenBatch batch = TrailingSequences(text, task.score_tokens());
  const std::string scratch = context.blobs->ScratchDirectory();
  const int64_t hidden_size = model.spec.hidden_size;
  LWQ_ASSIGN_OR_RETURN(MappedMatrix input,
                       MappedMatrix::Create(scratch, batch.num_tokens(), hidden_size));
  LWQ_ASSIGN_OR_RETURN(MappedMatrix final,
                       MappedMatrix::Create(scratch, batch.num_tokens(), hidden_size));
  if (task.layer() >= 0) {
    LWQ_ASSIGN_OR_RETURN(std::string path,
                         FetchInputBlob(context, "calibrate", HiddenBlobName(task.layer())));
    LWQ_RETURN_IF_ERROR(ReadRowsBlob(path, input.view()));
  }
  LWQ_ASSIGN_OR_RETURN(std::string path,
                       FetchInputBlob(context, "calibrate", HiddenBlobName(model.spec.num_layers)));
  LWQ_RETURN_IF_ERROR(ReadRowsBlob(path, final.view()));

  std::vector<std::vector<std::unique_ptr<UnitBlob>>> blobs;  // by unit and format
  SwapKlRequest request;
  request.layer = task.layer();
  for (const v1::UnitFormats& wanted : task.units()) {
    LWQ_ASSIGN_OR_RETURN(const AllocationUnit unit, UnitOf(model.inventory, wanted.unit()));
    std::vector<std::unique_ptr<UnitBlob>>& row = blobs.emplace_back();
    for (const std::string& id : wanted.formats()) {
      LWQ_ASSIGN_OR_RETURN(const WeightFormat* format, FindWeightFormat(id));
      LWQ_ASSIGN_OR_RETURN(auto blob, OpenUnitBlob(context, unit, format));
      row.push_back(std::move(blob));
    }
    request.units.push_back(unit);
    request.num_formats.push_back(wanted.formats_size());
  }
  request.replacement = [&](size_t unit, const LinearShape& linear, int format,
                            MatrixView weight) -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const StoredLinear stored,
                         blobs[unit][static_cast<size_t>(format)]->Find(linear.module));
    return DequantizeLinear(linear.module, stored, weight);
  };
  request.batch = &batch;
  request.layer_input = input.view();
  request.source_output = final.view();
  request.max_state_bytes = kMaxStateBytes;
  request.progress = [&](double done) {
    return context.progress(done, absl::StrCat("layer ", task.layer()));
  };
  LWQ_ASSIGN_OR_RETURN(std::vector<std::vector<double>> costs, SwapKl(*decoder, request));
  result.set_has_costs(true);
  for (int u = 0; u < task.units_size(); ++u) {
    for (int f = 0; f < task.units(u).formats_size(); ++f) {
      v1::UnitCost* cost = result.add_costs();
      cost->set_unit(task.units(u).unit());
      cost->set_format(task.units(u).formats(f));
      cost->set_cost(costs[static_cast<size_t>(u)][static_cast<size_t>(f)]);
    }
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
    LWQ_RETURN_IF_ERROR(MeasureCosts(context, task, model, result));
    return output;
  }
  LayerEvidence evidence;
  evidence.spec = &model.spec;
  evidence.weights = model.weights.get();
  evidence.layer = task.layer();
  evidence.seed = task.seed();
  if (scorer->needs_calibration) {
    LWQ_ASSIGN_OR_RETURN(evidence.mean_cosine, CosineOf(*context.lease, task.layer()));
  }
  LWQ_ASSIGN_OR_RETURN(double score, scorer->score_layer(evidence));
  result.set_layer_score(score);
  return output;
}

}  // namespace lwq
