#include "server/dispatch/task_work.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "records/plan_records.h"
#include "server/dispatch/evaluation_work.h"
#include "server/dispatch/job_options.h"
#include "server/dispatch/task_key.h"

namespace lwq {
namespace {

constexpr double kPreflightTokens = 256;

TextSize TextOf(const v1::CalibrationInput& calibration, double tokens) {
  return {.tokens = tokens, .sequence = static_cast<double>(calibration.sequence_length())};
}

int NumFormats(const google::protobuf::RepeatedPtrField<v1::UnitFormats>& units) {
  int count = 0;
  for (const v1::UnitFormats& unit : units) count += unit.formats_size();
  return count;
}

// Of an allocator that ends in measurements, how many plans it is likely to have measured: far from
// all that it may (worker/engine/plan/lwq.cc), because plans coincide.
double LikelyTrials(const GraphInput& input) {
  constexpr int kFirst = 8, kCorrected = 4, kMostProbes = 12;
  const int layers = input.model->manifest().inventory().num_layers();
  return std::min(input.max_trials, kFirst + std::min(layers, kMostProbes) + kCorrected);
}
double LikelyJudged(const GraphInput& input) { return std::min(input.max_trials, 5); }

v1::PhaseWork PhaseWorkOf(v1::Phase phase, int tasks, double operations) {
  v1::PhaseWork work;
  work.set_phase(phase);
  work.set_tasks(tasks);
  work.set_operations(operations);
  return work;
}

}  // namespace

WorkCounter::WorkCounter(const GraphInput& input) : input_(input) {
  if (input.model == nullptr) return;
  absl::StatusOr<ModelInventory> read = InventoryOf(input.model->manifest().inventory());
  if (read.ok()) read = InventoryFor(input.spec.quantize(), *std::move(read));
  if (!read.ok()) return;  // the job is refused elsewhere
  inventory_ = *std::move(read);
  model_ = std::make_unique<WorkModel>(&inventory_);
}

double WorkCounter::Operations(const v1::TaskSpec& spec) const {
  return model_ == nullptr ? 0 : WorkOf(spec).Operations();
}

Work WorkCounter::WorkOf(const v1::TaskSpec& spec) const {
  switch (spec.kind_case()) {
    case v1::TaskSpec::kPreflight:
      return model_->Preflight({kPreflightTokens, kPreflightTokens});
    case v1::TaskSpec::kCalibrate: {
      const v1::CalibrateTask& task = spec.calibrate();
      const auto tokens = static_cast<double>(task.calibration().num_tokens());
      Work work =
          model_->Layers(task.first_layer(), task.end_layer(), TextOf(task.calibration(), tokens));
      const bool moments = std::find(task.evidence().begin(), task.evidence().end(),
                                     "second-moments") != task.evidence().end();
      if (moments) work += model_->SecondMoments(task.first_layer(), task.end_layer(), tokens);
      work.encoded = tokens;
      work.tasks = 1;
      return work;
    }
    case v1::TaskSpec::kScore:
      return ScoreWork(spec.score());
    case v1::TaskSpec::kQuantize:
      return QuantizeWork(spec.quantize());
    case v1::TaskSpec::kTrial:
      return TrialWork();
    case v1::TaskSpec::kAssemble:
      return model_->Assemble(FileBytes());
    case v1::TaskSpec::kVerify:
      return model_->Verify(FileBytes());
    case v1::TaskSpec::kEvaluate:
      return EvaluationWork(*model_, spec.evaluate());
    case v1::TaskSpec::kIngest:
    case v1::TaskSpec::KIND_NOT_SET:
      break;
  }
  return {};
}

Work WorkCounter::QuantizeWork(const v1::QuantizeTask& task) const {
  std::vector<const AllocationUnit*> units;
  std::vector<std::vector<const WeightFormat*>> formats;
  for (const v1::UnitFormats& wanted : task.units()) {
    const auto unit =
        std::find_if(inventory_.units.begin(), inventory_.units.end(),
                     [&](const AllocationUnit& u) { return u.name == wanted.unit(); });
    if (unit == inventory_.units.end()) continue;
    units.push_back(&*unit);
    std::vector<const WeightFormat*>& of_unit = formats.emplace_back();
    for (const std::string& id : wanted.formats()) {
      const absl::StatusOr<const WeightFormat*> format = FindWeightFormat(id);
      if (format.ok()) of_unit.push_back(*format);
    }
  }
  const auto& evidence = input_.method.evidence();
  const bool calibrated =
      std::find(evidence.begin(), evidence.end(), "second-moments") != evidence.end();
  const auto& options = input_.spec.quantize().method_options();
  const auto sweeps = options.find("block-sweeps");
  const auto rounding = options.find("rounding");
  MethodTraits method{.calibrated = calibrated,
                      .refined = calibrated && Refines(input_.spec.quantize())};
  if (sweeps != options.end() && !absl::SimpleAtoi(sweeps->second, &method.block_sweeps)) {
    method.block_sweeps = 0;
  }
  // A method that rounds by GPTQ without options of its own for it (awq).
  if (sweeps == options.end() && rounding != options.end() && rounding->second != "nearest") {
    method.block_sweeps = kDefaultBlockSweeps;
  }
  return model_->Quantize(units, formats, method);
}

Work WorkCounter::ScoreWork(const v1::ScoreTask& task) const {
  Work work;
  work.tasks = 1;
  const Place place = PlaceOfRecord(task.layer());
  if (place.in_layer() && place.layer >= inventory_.num_layers) return work;
  if (!input_.scorer.needs_hidden_states()) {
    // From what is known of the layer: its weights are read at most.
    if (place.in_layer()) work += model_->Layers(place.layer, place.layer + 1, {});
    return work;
  }
  // Two formats of each unit are run, the others follow from their errors (score/cost_curve.h).
  const bool all = input_.scorer.measures_all_formats();
  double candidates = 0;
  for (const v1::UnitFormats& unit : task.units()) {
    candidates += all ? unit.formats_size() : std::min(unit.formats_size(), 2);
  }
  const auto tokens = static_cast<double>(task.held_out().score_tokens());
  work = model_->Exchange(place, candidates, TextOf(task.calibration(), tokens));
  work.encoded = static_cast<double>(task.calibration().num_tokens());
  return work;
}

Work WorkCounter::TrialWork() const {
  const v1::Calibration& calibration = input_.spec.quantize().calibration();
  Work work = model_->Trial({.tokens = static_cast<double>(calibration.trial_tokens()),
                             .sequence = static_cast<double>(calibration.sequence_length())});
  work.encoded = static_cast<double>(calibration.num_tokens() + calibration.score_tokens() +
                                     calibration.trial_tokens() + calibration.judge_tokens());
  return work;
}

// Until a plan says better: the weights in some five bits.
double WorkCounter::FileBytes() const {
  return static_cast<double>(input_.model->manifest().weight_bytes()) / 3;
}

std::vector<v1::PhaseWork> WorkCounter::Later(bool quantizes) const {
  std::vector<v1::PhaseWork> later;
  if (model_ == nullptr) return later;
  const double trials = LikelyTrials(input_) + LikelyJudged(input_);
  if (trials > 0) {
    later.push_back(
        PhaseWorkOf(v1::PLAN, static_cast<int>(trials), trials * TrialWork().Operations()));
  }
  if (!quantizes) {
    // One format of each unit, or the few that trials need.
    v1::QuantizeTask task;
    for (const auto& [layer, products] : input_.products) {
      for (const v1::UnitFormats& unit : products) {
        v1::UnitFormats& some = *task.add_units();
        some.set_unit(unit.unit());
        const int count = std::min(unit.formats_size(), trials > 0 ? 3 : 1);
        for (int f = 0; f < count; ++f) some.add_formats(unit.formats(f));
      }
    }
    Work work = QuantizeWork(task);
    work.tasks = static_cast<double>(input_.products.size());
    later.push_back(PhaseWorkOf(v1::QUANTIZE, static_cast<int>(work.tasks), work.Operations()));
  }
  later.push_back(PhaseWorkOf(v1::ASSEMBLE, 1, model_->Assemble(FileBytes()).Operations()));
  later.push_back(PhaseWorkOf(v1::VERIFY, 1, model_->Verify(FileBytes()).Operations()));
  const v1::Evaluation& evaluation = input_.spec.quantize().evaluation();
  double measured = 0;
  int datasets = 0;
  for (const auto& [name, dataset] : input_.datasets) {
    const bool asked =
        name == evaluation.text_dataset() ||
        std::find(evaluation.task_datasets().begin(), evaluation.task_datasets().end(), name) !=
            evaluation.task_datasets().end();
    if (!asked) continue;
    v1::EvaluateTask task = EvaluationOf(dataset, evaluation);
    task.set_subject("artifact");
    measured += EvaluationWork(*model_, task).Operations();
    ++datasets;
  }
  if (datasets > 0) later.push_back(PhaseWorkOf(v1::EVALUATE, datasets, measured));
  return later;
}

std::string PaceOf(const v1::TaskSpec& spec) {
  std::string pace(KindOf(spec));
  std::string compute;
  if (spec.has_quantize()) {
    absl::StrAppend(&pace, " ", spec.quantize().recipe().method());
    compute = spec.quantize().recipe().compute();
  }
  if (spec.has_score()) absl::StrAppend(&pace, " ", spec.score().scorer());
  if (spec.has_score()) compute = spec.score().recipe().compute();
  if (spec.has_calibrate()) compute = spec.calibrate().compute();
  if (spec.has_trial()) compute = spec.trial().compute();
  if (spec.has_evaluate()) compute = spec.evaluate().compute();
  if (!compute.empty() && compute != "f32") absl::StrAppend(&pace, " ", compute);
  return pace;
}

double OperationsLeft(const v1::TaskRecord& task) {
  if (task.spec().has_quantize() && task.missing_units_size() > 0) {
    const int all = NumFormats(task.spec().quantize().units());
    if (all > 0) return task.operations() * NumFormats(task.missing_units()) / all;
  }
  return task.operations();
}

}  // namespace lwq
