// The tasks of a quantize job, from preflight to the proof of its artifact.
#include <algorithm>
#include <set>
#include <utility>

#include "records/blob_names.h"
#include "records/plan_records.h"
#include "server/dispatch/job_graph.h"
#include "server/dispatch/plan_products.h"
#include "server/dispatch/task_key.h"
#include "server/dispatch/task_limits.h"
#include "server/dispatch/task_work.h"

namespace lwq {
namespace {

// What is outside the layers, as records have it.
const int kHead = RecordedLayer(Place::Head());
const int kEmbedding = RecordedLayer(Place::Embedding());

void AddDependency(TaskNode& task, absl::string_view key, absl::string_view role, int layer,
                   bool order_only) {
  for (const v1::TaskDependency& d : task.dependencies()) {
    if (d.key() == key && d.order_only() == order_only) return;
  }
  v1::TaskDependency& dependency = *task.add_dependencies();
  dependency.set_key(std::string(key));
  dependency.set_role(std::string(role));
  dependency.set_layer(layer);
  dependency.set_order_only(order_only);
}

void DependOn(TaskNode& task, const TaskNode& on) {
  AddDependency(task, on.key(), on.kind(), on.layer(), false);
}
void ComeAfter(TaskNode& task, const TaskNode& on) {
  AddDependency(task, on.key(), on.kind(), on.layer(), true);
}

// Builds the tasks of one quantize job, each kind with its key and dependencies.
class QuantizeGraph {
 public:
  explicit QuantizeGraph(const GraphInput& input)
      : input_(input),
        spec_(input.spec.quantize()),
        manifest_(input.model->manifest()),
        scope_{.salt = KeySaltOf(input), .engine = input.engine},
        counter_(input) {
    std::set<int> layers;
    for (const auto& unit : manifest_.inventory().units()) layers.insert(unit.layer());
    tied_ = layers.count(kHead) == 0;
    for (int layer : layers) {
      if (layer >= 0) layers_.push_back(layer);
    }
    for (int outside : {kHead, kEmbedding}) {
      if (IsQuantized(outside)) layers_.push_back(outside);
    }
  }

  JobGraph FirstStage();
  JobGraph TrialStage(const std::vector<v1::PlanSummary>& plans, bool judge);
  JobGraph LastStage(const v1::PlanSummary& chosen);

 private:
  bool scores() const { return input_.scores_needed; }
  bool measured() const { return scores() && input_.scorer.needs_quantized(); }
  bool reads_states() const { return scores() && input_.scorer.needs_hidden_states(); }
  // The source's predictions for the scorer's text are what units or plans are held against.
  bool compares() const { return reads_states() || input_.max_trials > 0; }
  // `tokens` in whole sequences, which is how calibration takes them: rounded up.
  int64_t WholeSequences(int64_t tokens) const;
  v1::HeldOutText HeldOut() const;
  // Text for the statistics and all that is held out from them.
  int64_t AllTokens() const;

  // Everything of a layer that the job may quantize.
  Products MenuOf(int layer) const {
    const auto menu = input_.products.find(layer);
    return menu == input_.products.end() ? Products() : menu->second;
  }
  bool IsQuantized(int layer) const { return input_.products.count(layer) > 0; }
  // Whether the method leaves edits of the layer's dense tensors.
  bool Edits(int layer) const { return layer >= 0 && input_.method.edits_tensors(); }
  v1::PlanSummary WithEdits(v1::PlanSummary plan) const;
  // What the task is named by, which is also how much it works on at a time.
  std::string KeyOf(v1::TaskSpec& spec, const std::vector<std::string>& input_keys) const {
    SetLimits(input_.memory, spec);
    return TaskKey(spec, input_keys, scope_);
  }
  TaskNode NewTask(v1::TaskSpec spec, int layer, const std::vector<std::string>& input_keys);
  v1::CalibrationInput CalibrationOf(int64_t num_tokens) const;
  std::set<std::string> Evidence() const;
  std::string StatisticsKey(int layer) const;
  std::string LayerDigest(int layer) const;
  const TaskNode& SegmentOf(int layer) const;

  TaskNode Preflight();
  void MakeSegments(const TaskNode& preflight);
  TaskNode Quantize(int layer, const Products& products, const TaskNode& preflight);
  std::map<int, TaskNode> QuantizeFor(const std::vector<v1::PlanSummary>& plans,
                                      const TaskNode& preflight);
  TaskNode Trial(const v1::PlanSummary& chosen, bool judge,
                 const std::map<int, TaskNode>& quantized);
  TaskNode Score(int layer, const TaskNode* quantized, const TaskNode& preflight);
  TaskNode Evaluate(const v1::Dataset& dataset, absl::string_view subject,
                    const std::vector<std::string>& input_keys);
  std::vector<const v1::Dataset*> EvaluationDatasets() const;

  const GraphInput& input_;
  const v1::QuantizeSpec& spec_;
  const v1::ModelManifest& manifest_;
  const KeyScope scope_;
  const WorkCounter counter_;
  std::vector<int> layers_;  // ascending; then the head and the embedding, where they are quantized
  bool tied_ = false;        // the embedding is the head's weight too
  std::vector<TaskNode> segments_;
};

int64_t QuantizeGraph::WholeSequences(int64_t tokens) const {
  int64_t length = spec_.calibration().sequence_length();
  const int64_t max_positions = manifest_.inventory().max_positions();
  if (max_positions > 0) length = std::min(length, max_positions);
  return length <= 0 ? tokens : (tokens + length - 1) / length * length;
}

v1::HeldOutText QuantizeGraph::HeldOut() const {
  v1::HeldOutText held_out;
  const v1::Calibration& calibration = spec_.calibration();
  if (reads_states()) held_out.set_score_tokens(WholeSequences(calibration.score_tokens()));
  if (input_.max_trials > 0) {
    held_out.set_trial_tokens(WholeSequences(calibration.trial_tokens()));
    held_out.set_judge_tokens(WholeSequences(calibration.judge_tokens()));
  }
  return held_out;
}

int64_t QuantizeGraph::AllTokens() const {
  const v1::HeldOutText held_out = HeldOut();
  return WholeSequences(spec_.calibration().num_tokens()) + held_out.score_tokens() +
         held_out.trial_tokens() + held_out.judge_tokens();
}

TaskNode QuantizeGraph::NewTask(v1::TaskSpec spec, int layer,
                                const std::vector<std::string>& input_keys) {
  TaskNode task;
  task.set_key(KeyOf(spec, input_keys));
  task.set_kind(std::string(KindOf(spec)));
  task.set_phase(PhaseOf(spec));
  task.set_layer(layer);
  task.set_model(input_.model->name());
  *task.mutable_needs() = NeedsOf(spec, input_.engine);
  task.mutable_needs()->set_family(manifest_.family());
  task.mutable_needs()->set_memory_bytes(input_.memory.Of(task.kind()));
  task.set_operations(counter_.Operations(spec));
  *task.mutable_spec() = std::move(spec);
  return task;
}

v1::CalibrationInput QuantizeGraph::CalibrationOf(int64_t num_tokens) const {
  const v1::Dataset& dataset = input_.datasets.at(spec_.calibration().dataset());
  v1::CalibrationInput input;
  *input.mutable_dataset() = dataset.blob();
  input.set_dataset_kind(dataset.kind());
  input.set_num_tokens(num_tokens);
  input.set_sequence_length(spec_.calibration().sequence_length());
  return input;
}

std::string QuantizeGraph::LayerDigest(int layer) const {
  if (layer < 0) return manifest_.embedding_digest();
  if (layer < manifest_.layer_digests_size()) return manifest_.layer_digests(layer);
  return manifest_.digest();
}

// What calibration collects: for the method, and for the scorer where scores are needed.
std::set<std::string> QuantizeGraph::Evidence() const {
  std::set<std::string> names(input_.method.evidence().begin(), input_.method.evidence().end());
  if (scores()) names.insert(input_.scorer.evidence().begin(), input_.scorer.evidence().end());
  return names;
}

// The statistics of a layer do not depend on how calibration is cut into segments nor on what else
// a segment keeps, so jobs with other scorers share the quantized layers.
std::string QuantizeGraph::StatisticsKey(int layer) const {
  v1::TaskSpec spec;
  v1::CalibrateTask& task = *spec.mutable_calibrate();
  *task.mutable_model() = ModelDigest(manifest_.digest());
  *task.mutable_calibration() = CalibrationOf(spec_.calibration().num_tokens());
  task.set_first_layer(layer);
  task.set_end_layer(layer);
  *task.mutable_evidence() = input_.method.evidence();
  task.set_compute(spec_.compute());
  return KeyOf(spec, {});
}

const TaskNode& QuantizeGraph::SegmentOf(int layer) const {
  for (const TaskNode& segment : segments_) {
    if (layer >= 0 && layer < segment.spec().calibrate().end_layer()) return segment;
  }
  return segments_.back();
}

// Says which layers are edited: all of which something is quantized.
v1::PlanSummary QuantizeGraph::WithEdits(v1::PlanSummary plan) const {
  plan.clear_edited_layers();
  for (const auto& [layer, products] : ProductsByLayer({plan})) {
    if (Edits(layer)) plan.add_edited_layers(layer);
  }
  return plan;
}

TaskNode QuantizeGraph::Preflight() {
  v1::TaskSpec spec;
  *spec.mutable_preflight()->mutable_model() = ModelDigest(manifest_.digest());
  *spec.mutable_preflight()->mutable_recipe() = RecipeOf(spec_);
  spec.mutable_preflight()->set_memory_bytes(spec_.memory_bytes());
  spec.mutable_preflight()->set_forecast_bytes(input_.memory.total_bytes);
  std::set<std::string> formats;
  for (const auto& [layer, products] : input_.products) {
    for (const auto& unit : products) formats.insert(unit.formats().begin(), unit.formats().end());
  }
  for (const std::string& format : formats) spec.mutable_preflight()->add_formats(format);
  return NewTask(std::move(spec), kNoLayer, {});
}

void QuantizeGraph::MakeSegments(const TaskNode& preflight) {
  if (!RunsSource(input_)) return;
  const int num_layers = manifest_.inventory().num_layers();
  const int per_segment = LayersPerSegment(manifest_, spec_.calibration().num_tokens());
  for (int first = 0; first < num_layers; first += per_segment) {
    v1::TaskSpec spec;
    v1::CalibrateTask& task = *spec.mutable_calibrate();
    *task.mutable_model() = ModelDigest(manifest_.digest());
    *task.mutable_calibration() = CalibrationOf(AllTokens());
    *task.mutable_held_out() = HeldOut();
    task.set_first_layer(first);
    task.set_end_layer(std::min(first + per_segment, num_layers));
    for (const std::string& name : Evidence()) task.add_evidence(name);
    const int head = tied_ ? kEmbedding : kHead;
    task.set_head_evidence(task.evidence_size() > 0 && IsQuantized(head));
    task.set_hidden_states(compares());
    task.set_compute(spec_.compute());
    std::vector<std::string> inputs;
    if (!segments_.empty()) inputs.push_back(segments_.back().key());
    TaskNode node = NewTask(std::move(spec), first, inputs);
    if (!segments_.empty()) DependOn(node, segments_.back());
    ComeAfter(node, preflight);
    segments_.push_back(std::move(node));
  }
}

TaskNode QuantizeGraph::Quantize(int layer, const Products& products, const TaskNode& preflight) {
  v1::TaskSpec spec;
  v1::QuantizeTask& task = *spec.mutable_quantize();
  *task.mutable_model() = ModelDigest(LayerDigest(layer));
  task.set_layer(layer);
  *task.mutable_recipe() = RecipeOf(spec_);
  std::vector<std::string> inputs;
  if (input_.method.needs_calibration()) {
    *task.mutable_calibration() = CalibrationOf(spec_.calibration().num_tokens());
    inputs.push_back(StatisticsKey(layer));
  }
  std::map<std::string, std::string> product_keys;
  for (const v1::UnitFormats& unit : products) {
    for (const std::string& format : unit.formats()) {
      task.clear_units();
      task.add_units()->set_unit(unit.unit());
      task.mutable_units(0)->add_formats(format);
      product_keys[UnitBlobName(unit.unit(), format)] = KeyOf(spec, inputs);
    }
  }
  if (Edits(layer)) {
    task.clear_units();
    task.set_edits(true);
    product_keys[EditsBlobName(layer)] = KeyOf(spec, inputs);
  }
  *task.mutable_units() = {products.begin(), products.end()};
  TaskNode node = NewTask(std::move(spec), layer, inputs);
  // The whole model's digest is what a worker checks; the key above holds the layer's alone.
  *node.mutable_spec()->mutable_quantize()->mutable_model() = ModelDigest(manifest_.digest());
  node.mutable_product_keys()->insert(product_keys.begin(), product_keys.end());
  if (input_.method.needs_calibration()) DependOn(node, SegmentOf(layer));
  ComeAfter(node, preflight);
  return node;
}

TaskNode QuantizeGraph::Score(int layer, const TaskNode* quantized, const TaskNode& preflight) {
  v1::TaskSpec spec;
  v1::ScoreTask& task = *spec.mutable_score();
  *task.mutable_model() = ModelDigest(manifest_.digest());
  task.set_scorer(input_.scorer.name());
  task.set_layer(layer);
  *task.mutable_options() = spec_.scorer_options();
  if (input_.scorer.gives_costs()) {
    const Products products = MenuOf(layer);
    *task.mutable_units() = {products.begin(), products.end()};
    *task.mutable_recipe() = RecipeOf(spec_);
    task.set_edited(quantized != nullptr && Edits(layer));
  }
  const bool calibrated = input_.scorer.needs_calibration() || reads_states();
  if (calibrated) {
    *task.mutable_calibration() = CalibrationOf(AllTokens());
    *task.mutable_held_out() = HeldOut();
  }
  std::vector<const TaskNode*> segments;
  if (!segments_.empty() && calibrated) {
    segments.push_back(&SegmentOf(layer));
    if (reads_states() && segments.back() != &segments_.back()) {
      segments.push_back(&segments_.back());
    }
  }
  std::vector<std::string> inputs;
  for (const TaskNode* segment : segments) inputs.push_back(segment->key());
  if (quantized != nullptr) {
    const std::map<std::string, std::string> products(quantized->product_keys().begin(),
                                                      quantized->product_keys().end());
    for (const auto& [blob, key] : products) inputs.push_back(key);
  }
  TaskNode node = NewTask(std::move(spec), layer, inputs);
  for (const TaskNode* segment : segments) DependOn(node, *segment);
  if (quantized != nullptr) DependOn(node, *quantized);
  ComeAfter(node, preflight);
  return node;
}

std::vector<const v1::Dataset*> QuantizeGraph::EvaluationDatasets() const {
  std::vector<const v1::Dataset*> datasets;
  const v1::Evaluation& evaluation = spec_.evaluation();
  if (!evaluation.text_dataset().empty()) {
    datasets.push_back(&input_.datasets.at(evaluation.text_dataset()));
  }
  for (const std::string& name : evaluation.task_datasets()) {
    datasets.push_back(&input_.datasets.at(name));
  }
  return datasets;
}

TaskNode QuantizeGraph::Evaluate(const v1::Dataset& dataset, absl::string_view subject,
                                 const std::vector<std::string>& input_keys) {
  v1::TaskSpec spec;
  v1::EvaluateTask& task = *spec.mutable_evaluate();
  task = EvaluationOf(dataset, spec_.evaluation());
  *task.mutable_model() = ModelDigest(manifest_.digest());
  task.set_subject(std::string(subject));
  task.set_compute(spec_.compute());
  return NewTask(std::move(spec), kNoLayer, input_keys);
}

JobGraph QuantizeGraph::FirstStage() {
  JobGraph graph;
  graph.engine = input_.engine;
  TaskNode preflight = Preflight();
  MakeSegments(preflight);
  graph.tasks.push_back(preflight);
  for (const TaskNode& segment : segments_) graph.tasks.push_back(segment);
  if (measured()) {
    for (int layer : layers_) {
      if (MenuOf(layer).empty()) continue;  // nothing of it can be quantized
      TaskNode quantized = Quantize(layer, MenuOf(layer), preflight);
      TaskNode score = Score(layer, &quantized, preflight);
      graph.plan_tasks.push_back(score.key());
      graph.tasks.push_back(std::move(quantized));
      graph.tasks.push_back(std::move(score));
    }
  } else if (scores()) {
    for (int layer : layers_) {
      // Rankers order the layers; what is outside them has no place in such an order.
      if (layer < 0 && !input_.scorer.gives_costs()) continue;
      graph.tasks.push_back(Score(layer, nullptr, preflight));
      graph.plan_tasks.push_back(graph.tasks.back().key());
    }
  }
  if (graph.plan_tasks.empty()) graph.plan_tasks.push_back(preflight.key());
  const std::vector<const v1::Dataset*> datasets = EvaluationDatasets();
  for (const v1::Dataset* dataset : datasets) {
    graph.tasks.push_back(Evaluate(*dataset, "source", {}));
  }
  graph.expected_tasks =
      static_cast<int>((measured() ? 0 : layers_.size()) + input_.max_trials + 2 + datasets.size());
  graph.later = counter_.Later(measured());
  return graph;
}

// By layer, the tasks that give all products of `plans`: those of the first stage where the scorer
// measured them, else for these products alone.
std::map<int, TaskNode> QuantizeGraph::QuantizeFor(const std::vector<v1::PlanSummary>& plans,
                                                   const TaskNode& preflight) {
  std::map<int, TaskNode> quantized;
  for (const auto& [layer, products] : ProductsByLayer(plans)) {
    quantized[layer] = Quantize(layer, measured() ? MenuOf(layer) : products, preflight);
  }
  return quantized;
}

TaskNode QuantizeGraph::Trial(const v1::PlanSummary& chosen, bool judge,
                              const std::map<int, TaskNode>& quantized) {
  const v1::PlanSummary plan = WithEdits(chosen);
  v1::TaskSpec spec;
  v1::TrialTask& task = *spec.mutable_trial();
  *task.mutable_model() = ModelDigest(manifest_.digest());
  *task.mutable_calibration() = CalibrationOf(AllTokens());
  *task.mutable_held_out() = HeldOut();
  task.set_judge(judge);
  *task.mutable_plan() = FormatsOf(plan);
  task.set_compute(spec_.compute());
  std::vector<std::string> inputs = ProductKeysOf(plan, quantized);
  inputs.push_back(segments_.back().key());
  TaskNode trial = NewTask(std::move(spec), kNoLayer, inputs);
  DependOn(trial, segments_.back());
  for (const auto& [layer, products] : ProductsByLayer({plan})) {
    DependOn(trial, quantized.at(layer));
  }
  return trial;
}

JobGraph QuantizeGraph::TrialStage(const std::vector<v1::PlanSummary>& plans, bool judge) {
  JobGraph graph = FirstStage();
  graph.plan_tasks.clear();
  const std::map<int, TaskNode> quantized = QuantizeFor(plans, graph.tasks.front());
  if (!measured()) {
    for (const auto& [layer, task] : quantized) graph.tasks.push_back(task);
  }
  for (const v1::PlanSummary& plan : plans) {
    graph.tasks.push_back(Trial(plan, judge, quantized));
    graph.plan_tasks.push_back(graph.tasks.back().key());
  }
  return graph;
}

JobGraph QuantizeGraph::LastStage(const v1::PlanSummary& chosen) {
  const v1::PlanSummary plan = WithEdits(chosen);
  JobGraph graph = FirstStage();
  const std::map<int, TaskNode> quantized = QuantizeFor({plan}, graph.tasks.front());
  const std::vector<std::string> product_keys = ProductKeysOf(plan, quantized);
  if (!measured()) {
    for (const auto& [layer, task] : quantized) graph.tasks.push_back(task);
  }
  v1::TaskSpec spec;
  v1::AssembleTask& assemble_task = *spec.mutable_assemble();
  *assemble_task.mutable_model() = ModelDigest(manifest_.digest());
  *assemble_task.mutable_plan() = plan;
  *assemble_task.mutable_recipe() = RecipeOf(spec_);
  assemble_task.set_max_shard_bytes(spec_.max_shard_bytes());
  TaskNode assemble = NewTask(spec, kNoLayer, product_keys);
  v1::TaskSpec verify_spec;
  *verify_spec.mutable_verify()->mutable_model() = ModelDigest(manifest_.digest());
  *verify_spec.mutable_verify()->mutable_plan() = plan;
  *verify_spec.mutable_verify()->mutable_recipe() = RecipeOf(spec_);
  verify_spec.mutable_verify()->set_max_shard_bytes(spec_.max_shard_bytes());
  TaskNode verify = NewTask(std::move(verify_spec), kNoLayer, {assemble.key()});
  for (const auto& [layer, task] : quantized) {
    DependOn(assemble, task);
    DependOn(verify, task);
  }
  DependOn(verify, assemble);
  // What an evaluation sees of an artifact is its formats and contents.
  v1::TaskSpec content = spec;
  *content.mutable_assemble()->mutable_plan() = FormatsOf(plan);
  content.mutable_assemble()->clear_max_shard_bytes();
  const std::string content_key = TaskKey(content, product_keys, scope_);
  std::vector<TaskNode> evaluations;
  for (const v1::Dataset* dataset : EvaluationDatasets()) {
    TaskNode evaluation = Evaluate(*dataset, "artifact", {content_key});
    DependOn(evaluation, assemble);
    ComeAfter(evaluation, verify);
    evaluations.push_back(std::move(evaluation));
  }
  graph.tasks.push_back(std::move(assemble));
  graph.tasks.push_back(std::move(verify));
  for (TaskNode& evaluation : evaluations) graph.tasks.push_back(std::move(evaluation));
  graph.expected_tasks = 0;
  graph.later.clear();
  return graph;
}

}  // namespace

JobGraph BuildFirstStage(const GraphInput& input) { return QuantizeGraph(input).FirstStage(); }

JobGraph BuildTrialStage(const GraphInput& input, const std::vector<v1::PlanSummary>& plans,
                         bool judge) {
  return QuantizeGraph(input).TrialStage(plans, judge);
}

JobGraph BuildLastStage(const GraphInput& input, const v1::PlanSummary& plan) {
  return QuantizeGraph(input).LastStage(plan);
}

}  // namespace lwq
