#include "server/dispatch/job_graph.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/hash.h"
#include "server/dispatch/task_key.h"
#include "worker/engine/plan/profile.h"

namespace lwq {
namespace {

constexpr char kBuiltinDataset[] = "datasets/builtin-books";
constexpr int kLmHeadLayer = -1;
constexpr int kDenseBits = 16;
// What a small machine does of a segment's floating-point operations in half a minute.
constexpr double kSegmentFlops = 1.5e12;

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
        salt_(spec_.no_cache() ? input.job : "") {
    std::set<int> layers;
    for (const auto& unit : manifest_.inventory().units()) layers.insert(unit.layer());
    for (int layer : layers) {
      if (layer >= 0) layers_.push_back(layer);
    }
    if (layers.count(kLmHeadLayer) > 0) layers_.push_back(kLmHeadLayer);
  }

  JobGraph FirstStage();
  JobGraph SecondStage(const v1::PlanSummary& plan);

 private:
  bool scores() const { return input_.scores_needed; }
  bool measured() const { return scores() && input_.scorer.needs_quantized(); }
  int64_t ScoreTokens() const { return measured() ? spec_.calibration().score_tokens() : 0; }
  bool calibrated() const {
    return input_.method.needs_calibration() ||
           (scores() && (input_.scorer.needs_calibration() || measured()));
  }

  // The widths that have to be computed: 16 bits are the source's own.
  std::vector<int> Widths() const {
    std::vector<int> widths;
    for (int b : spec_.bits()) {
      if (b != kDenseBits) widths.push_back(b);
    }
    return widths;
  }
  TaskNode NewTask(v1::TaskSpec spec, int layer, const std::vector<std::string>& input_keys);
  v1::CalibrationInput CalibrationOf(int64_t num_tokens) const;
  std::string StatisticsKey(int layer) const;
  std::string LayerDigest(int layer) const;
  const TaskNode& SegmentOf(int layer) const;

  TaskNode Preflight();
  void MakeSegments(const TaskNode& preflight);
  TaskNode Quantize(int layer, const std::vector<int>& bits, const TaskNode& preflight);
  TaskNode Score(int layer, const TaskNode* quantized, const TaskNode& preflight);
  TaskNode Evaluate(const v1::Dataset& dataset, absl::string_view subject,
                    const std::vector<std::string>& input_keys);
  std::vector<const v1::Dataset*> EvaluationDatasets() const;

  const GraphInput& input_;
  const v1::QuantizeSpec& spec_;
  const v1::ModelManifest& manifest_;
  const std::string salt_;
  std::vector<int> layers_;  // ascending, lm_head last
  std::vector<TaskNode> segments_;
};

TaskNode QuantizeGraph::NewTask(v1::TaskSpec spec, int layer,
                                const std::vector<std::string>& input_keys) {
  TaskNode task;
  task.set_key(TaskKey(spec, input_keys, salt_));
  task.set_kind(std::string(KindOf(spec)));
  task.set_phase(PhaseOf(spec));
  task.set_layer(layer);
  task.set_model(input_.model->name());
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
  if (layer == kLmHeadLayer) return manifest_.embedding_digest();
  if (layer < manifest_.layer_digests_size()) return manifest_.layer_digests(layer);
  return manifest_.digest();
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
  task.set_statistics(true);
  task.set_compute(spec_.compute());
  return TaskKey(spec, {}, salt_);
}

const TaskNode& QuantizeGraph::SegmentOf(int layer) const {
  for (const TaskNode& segment : segments_) {
    if (layer >= 0 && layer < segment.spec().calibrate().end_layer()) return segment;
  }
  return segments_.back();
}

TaskNode QuantizeGraph::Preflight() {
  v1::TaskSpec spec;
  *spec.mutable_preflight()->mutable_model() = ModelDigest(manifest_.digest());
  *spec.mutable_preflight()->mutable_recipe() = RecipeOf(spec_);
  spec.mutable_preflight()->set_memory_bytes(spec_.memory_bytes());
  return NewTask(std::move(spec), kNoLayer, {});
}

void QuantizeGraph::MakeSegments(const TaskNode& preflight) {
  if (!calibrated()) return;
  const int num_layers = manifest_.inventory().num_layers();
  const int per_segment = LayersPerSegment(manifest_, spec_.calibration().num_tokens());
  for (int first = 0; first < num_layers; first += per_segment) {
    v1::TaskSpec spec;
    v1::CalibrateTask& task = *spec.mutable_calibrate();
    *task.mutable_model() = ModelDigest(manifest_.digest());
    *task.mutable_calibration() = CalibrationOf(spec_.calibration().num_tokens() + ScoreTokens());
    task.set_score_tokens(ScoreTokens());
    task.set_first_layer(first);
    task.set_end_layer(std::min(first + per_segment, num_layers));
    task.set_statistics(input_.method.needs_calibration());
    task.set_hidden_states(measured());
    task.set_compute(spec_.compute());
    std::vector<std::string> inputs;
    if (!segments_.empty()) inputs.push_back(segments_.back().key());
    TaskNode node = NewTask(std::move(spec), first, inputs);
    if (!segments_.empty()) DependOn(node, segments_.back());
    ComeAfter(node, preflight);
    segments_.push_back(std::move(node));
  }
}

TaskNode QuantizeGraph::Quantize(int layer, const std::vector<int>& bits,
                                 const TaskNode& preflight) {
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
  std::map<int, std::string> width_keys;
  for (int b : bits) {
    task.clear_bits();
    task.add_bits(b);
    width_keys[b] = TaskKey(spec, inputs, salt_);
  }
  task.clear_bits();
  for (int b : bits) task.add_bits(b);
  TaskNode node = NewTask(std::move(spec), layer, inputs);
  // The whole model's digest is what a worker checks; the key above holds the layer's alone.
  *node.mutable_spec()->mutable_quantize()->mutable_model() = ModelDigest(manifest_.digest());
  for (const auto& [b, key] : width_keys) (*node.mutable_width_keys())[b] = key;
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
  task.set_seed(spec_.seed());
  if (input_.scorer.gives_costs()) {
    for (int b : Widths()) task.add_bits(b);
    *task.mutable_recipe() = RecipeOf(spec_);
  }
  if (input_.scorer.needs_calibration() || measured()) {
    *task.mutable_calibration() = CalibrationOf(spec_.calibration().num_tokens() + ScoreTokens());
    task.set_score_tokens(ScoreTokens());
  }
  std::vector<const TaskNode*> segments;
  if (!segments_.empty() && (input_.scorer.needs_calibration() || measured())) {
    segments.push_back(&SegmentOf(layer));
    if (measured() && segments.back() != &segments_.back()) segments.push_back(&segments_.back());
  }
  std::vector<std::string> inputs;
  for (const TaskNode* segment : segments) inputs.push_back(segment->key());
  if (quantized != nullptr) {
    std::map<int, std::string> widths(quantized->width_keys().begin(),
                                      quantized->width_keys().end());
    for (const auto& [bits, key] : widths) inputs.push_back(key);
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

void FillEvaluate(const v1::Dataset& dataset, const v1::Evaluation& evaluation,
                  v1::EvaluateTask& task) {
  task.set_dataset_name(dataset.name());
  *task.mutable_dataset() = dataset.blob();
  task.set_dataset_kind(dataset.kind());
  task.set_bos(evaluation.bos());
  const bool is_text = dataset.name() == evaluation.text_dataset();
  if (is_text) {
    task.set_text_tokens(evaluation.text_tokens());
    task.set_sequence_length(evaluation.sequence_length());
  } else {
    task.set_limit(evaluation.limit());
  }
}

TaskNode QuantizeGraph::Evaluate(const v1::Dataset& dataset, absl::string_view subject,
                                 const std::vector<std::string>& input_keys) {
  v1::TaskSpec spec;
  v1::EvaluateTask& task = *spec.mutable_evaluate();
  *task.mutable_model() = ModelDigest(manifest_.digest());
  task.set_subject(std::string(subject));
  task.set_compute(spec_.compute());
  FillEvaluate(dataset, spec_.evaluation(), task);
  return NewTask(std::move(spec), kNoLayer, input_keys);
}

JobGraph QuantizeGraph::FirstStage() {
  JobGraph graph;
  TaskNode preflight = Preflight();
  MakeSegments(preflight);
  graph.tasks.push_back(preflight);
  for (const TaskNode& segment : segments_) graph.tasks.push_back(segment);
  if (measured()) {
    for (int layer : layers_) {
      TaskNode quantized = Quantize(layer, Widths(), preflight);
      TaskNode score = Score(layer, &quantized, preflight);
      graph.plan_tasks.push_back(score.key());
      graph.tasks.push_back(std::move(quantized));
      graph.tasks.push_back(std::move(score));
    }
  } else if (scores()) {
    for (int layer : layers_) {
      // Rankers order the layers; the head has no place in such an order.
      if (layer == kLmHeadLayer && !input_.scorer.gives_costs()) continue;
      graph.tasks.push_back(Score(layer, nullptr, preflight));
      graph.plan_tasks.push_back(graph.tasks.back().key());
    }
  }
  if (graph.plan_tasks.empty()) graph.plan_tasks.push_back(preflight.key());
  const std::vector<const v1::Dataset*> datasets = EvaluationDatasets();
  for (const v1::Dataset* dataset : datasets) {
    graph.tasks.push_back(Evaluate(*dataset, "source", {}));
  }
  graph.expected_tasks = static_cast<int>((measured() ? 0 : layers_.size()) + 2 + datasets.size());
  return graph;
}

JobGraph QuantizeGraph::SecondStage(const v1::PlanSummary& plan) {
  JobGraph graph = FirstStage();
  const TaskNode preflight = graph.tasks.front();
  std::map<int, std::set<int>> widths;  // of each layer
  for (const v1::UnitChoice& unit : plan.units()) {
    if (unit.bits() != kDenseBits) widths[unit.layer()].insert(unit.bits());
  }
  v1::TaskSpec spec;
  v1::AssembleTask& assemble_task = *spec.mutable_assemble();
  *assemble_task.mutable_model() = ModelDigest(manifest_.digest());
  *assemble_task.mutable_plan() = plan;
  *assemble_task.mutable_recipe() = RecipeOf(spec_);
  assemble_task.set_max_shard_bytes(spec_.max_shard_bytes());
  std::vector<TaskNode> quantized;
  std::vector<std::string> width_keys;
  for (const auto& [layer, bits] : widths) {
    const std::vector<int> wanted =
        measured() ? Widths() : std::vector<int>(bits.begin(), bits.end());
    quantized.push_back(Quantize(layer, wanted, preflight));
    for (int b : bits) width_keys.push_back(quantized.back().width_keys().at(b));
    if (!measured()) graph.tasks.push_back(quantized.back());
  }
  TaskNode assemble = NewTask(spec, kNoLayer, width_keys);
  v1::TaskSpec verify_spec;
  *verify_spec.mutable_verify()->mutable_model() = ModelDigest(manifest_.digest());
  *verify_spec.mutable_verify()->mutable_plan() = plan;
  *verify_spec.mutable_verify()->mutable_recipe() = RecipeOf(spec_);
  TaskNode verify = NewTask(std::move(verify_spec), kNoLayer, {assemble.key()});
  for (const TaskNode& layer : quantized) {
    DependOn(assemble, layer);
    DependOn(verify, layer);
  }
  DependOn(verify, assemble);
  // What an evaluation sees of an artifact is its formats and contents, not why they were chosen.
  v1::TaskSpec content = spec;
  v1::PlanSummary formats;
  for (const v1::UnitChoice& unit : plan.units()) {
    v1::UnitChoice& format = *formats.add_units();
    format = unit;
    format.clear_cost();
  }
  *content.mutable_assemble()->mutable_plan() = formats;
  content.mutable_assemble()->clear_max_shard_bytes();
  const std::string content_key = TaskKey(content, width_keys, salt_);
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
  return graph;
}

}  // namespace

void FillDefaults(v1::Evaluation& evaluation) {
  if (evaluation.text_tokens() == 0) evaluation.set_text_tokens(16384);
  if (evaluation.sequence_length() == 0) evaluation.set_sequence_length(256);
  if (evaluation.bos().empty()) evaluation.set_bos("tokenizer");
}

void FillDefaults(const v1::ModelManifest& manifest, v1::QuantizeSpec& spec) {
  if (spec.method().empty()) spec.set_method("gptq");
  if (spec.scorer().empty()) spec.set_scorer("kl");
  if (spec.allocator().empty()) spec.set_allocator("knapsack");
  if (spec.profile().empty()) spec.set_profile("vllm-lowbit");
  if (spec.compute().empty()) spec.set_compute("f32");
  if (spec.group_size() == 0) spec.set_group_size(128);
  if (spec.damping() == 0) spec.set_damping(0.01);
  std::set<int> bits(spec.bits().begin(), spec.bits().end());
  // An unknown profile is refused later, by name.
  if (auto profile = FindProfile(spec.profile()); bits.empty() && profile.ok()) {
    bits.insert((*profile)->bits.begin(), (*profile)->bits.end());
  }
  spec.clear_bits();
  for (int b : bits) spec.add_bits(b);
  v1::Calibration& calibration = *spec.mutable_calibration();
  if (calibration.dataset().empty()) calibration.set_dataset(kBuiltinDataset);
  if (calibration.num_tokens() == 0) calibration.set_num_tokens(32768);
  if (calibration.score_tokens() == 0) calibration.set_score_tokens(4096);
  // The scorer reads no more text than the quantizer: a small job stays small.
  calibration.set_score_tokens(std::min(calibration.score_tokens(), calibration.num_tokens()));
  if (calibration.sequence_length() == 0) {
    const int64_t longest = manifest.inventory().max_positions();
    calibration.set_sequence_length(longest > 0 ? std::min<int64_t>(512, longest) : 512);
  }
  FillDefaults(*spec.mutable_evaluation());
}

int LayersPerSegment(const v1::ModelManifest& manifest, int64_t num_tokens) {
  const v1::Inventory& inventory = manifest.inventory();
  double weights = 0;
  for (const auto& unit : inventory.units()) {
    if (unit.layer() < 0) continue;
    for (const auto& linear : unit.linears()) {
      weights += static_cast<double>(linear.out_features()) * linear.in_features();
    }
  }
  if (inventory.num_layers() <= 0 || weights <= 0) return 1;
  const double flops = 2.0 * weights / inventory.num_layers() * static_cast<double>(num_tokens);
  const double layers = kSegmentFlops / std::max(flops, 1.0);
  if (layers >= inventory.num_layers()) return inventory.num_layers();
  return std::max(1, static_cast<int>(layers));
}

v1::Recipe RecipeOf(const v1::QuantizeSpec& spec) {
  v1::Recipe recipe;
  recipe.set_method(spec.method());
  recipe.set_group_size(spec.group_size() < 0 ? 0 : spec.group_size());
  recipe.set_asymmetric(spec.asymmetric());
  recipe.set_compute(spec.compute());
  recipe.set_damping(spec.damping());
  recipe.set_act_order(!spec.no_act_order());
  recipe.set_scale_search(!spec.no_scale_search());
  recipe.set_refinement(!spec.no_refinement());
  return recipe;
}

JobGraph BuildFirstStage(const GraphInput& input) { return QuantizeGraph(input).FirstStage(); }

JobGraph BuildSecondStage(const GraphInput& input, const v1::PlanSummary& plan) {
  return QuantizeGraph(input).SecondStage(plan);
}

JobGraph BuildEvaluationGraph(const GraphInput& input) {
  JobGraph graph;
  const v1::EvaluateSpec& spec = input.spec.evaluate();
  std::vector<std::string> names = DatasetsOf(input.spec);
  for (const std::string& name : names) {
    TaskNode node;
    v1::EvaluateTask& task = *node.mutable_spec()->mutable_evaluate();
    task.set_subject("model");
    task.set_directory(spec.model_directory());
    task.set_against_directory(spec.against_directory());
    task.set_compute(spec.compute().empty() ? "f32" : spec.compute());
    FillEvaluate(input.datasets.at(name), spec.evaluation(), task);
    // What lies in a directory may change, so nothing is shared between jobs.
    node.set_key(TaskKey(node.spec(), {}, input.job));
    node.set_kind("evaluate");
    node.set_phase(v1::EVALUATE);
    node.set_layer(kNoLayer);
    graph.tasks.push_back(std::move(node));
  }
  return graph;
}

TaskNode BuildIngest(const v1::Model& model, absl::string_view salt) {
  TaskNode node;
  node.mutable_spec()->mutable_ingest()->set_directory(model.source().directory());
  node.set_key(TaskKey(node.spec(), {model.name()}, salt));
  node.set_kind("ingest");
  node.set_phase(v1::INGEST);
  node.set_layer(kNoLayer);
  return node;
}

std::vector<std::string> DatasetsOf(const v1::JobSpec& spec) {
  std::vector<std::string> names;
  auto add = [&names](const std::string& name) {
    if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
    }
  };
  if (spec.has_quantize()) add(spec.quantize().calibration().dataset());
  const v1::Evaluation& evaluation =
      spec.has_quantize() ? spec.quantize().evaluation() : spec.evaluate().evaluation();
  add(evaluation.text_dataset());
  for (const std::string& name : evaluation.task_datasets()) add(name);
  return names;
}

}  // namespace lwq
