#include "server/dispatch/job_graph.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/dispatch/task_key.h"
#include "server/store/tenant.h"

namespace lwq {
namespace {

// What a small machine does of a segment's floating-point operations in half a minute.
constexpr double kSegmentFlops = 1.5e12;
// Handing over the hidden states costs a fifth of a layer.
constexpr int kMinSegmentLayers = 2;

}  // namespace

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
  return std::max(kMinSegmentLayers, static_cast<int>(layers));
}

v1::Recipe RecipeOf(const v1::QuantizeSpec& spec) {
  v1::Recipe recipe;
  recipe.set_method(spec.method());
  recipe.set_compute(spec.compute());
  *recipe.mutable_options() = spec.method_options();
  return recipe;
}

std::string SaltOf(const v1::JobRecord& record) {
  return record.salt().empty() ? record.job().name() : record.salt();
}

std::string KeySaltOf(const GraphInput& input) {
  if (input.spec.quantize().no_cache()) return input.salt;
  const std::string tenant = TenantOf(*input.model);
  return tenant == kDefaultTenant ? "" : absl::StrCat("tenants/", tenant);
}

bool RunsSource(const GraphInput& input) {
  if (input.method.needs_calibration() || input.max_trials > 0) return true;
  return input.scores_needed &&
         (input.scorer.needs_calibration() || input.scorer.needs_hidden_states());
}

MemoryQuestion MemoryOf(const GraphInput& input) {
  const auto reads_moments = [](const v1::Capability& capability) {
    const auto& names = capability.evidence();
    return std::find(names.begin(), names.end(), "second-moments") != names.end();
  };
  MemoryQuestion memory;
  memory.runs_source = RunsSource(input);
  memory.factors = reads_moments(input.method);
  memory.scores_moments = input.scores_needed && reads_moments(input.scorer);
  memory.moments = memory.factors || memory.scores_moments;
  return memory;
}

v1::EvaluateTask EvaluationOf(const v1::Dataset& dataset, const v1::Evaluation& evaluation) {
  v1::EvaluateTask task;
  task.set_dataset_name(dataset.name());
  *task.mutable_dataset() = dataset.blob();
  task.set_dataset_kind(dataset.kind());
  task.set_bos(evaluation.bos());
  if (dataset.name() == evaluation.text_dataset()) {
    task.set_text_tokens(evaluation.text_tokens());
    task.set_sequence_length(evaluation.sequence_length());
  } else {
    task.set_limit(evaluation.limit());
  }
  return task;
}

JobGraph BuildEvaluationGraph(const GraphInput& input) {
  JobGraph graph;
  const v1::EvaluateSpec& spec = input.spec.evaluate();
  std::vector<std::string> names = DatasetsOf(input.spec);
  for (const std::string& name : names) {
    TaskNode node;
    v1::EvaluateTask& task = *node.mutable_spec()->mutable_evaluate();
    task = EvaluationOf(input.datasets.at(name), spec.evaluation());
    task.set_subject("model");
    task.set_directory(spec.model_directory());
    task.set_against_directory(spec.against_directory());
    task.set_compute(spec.compute().empty() ? "f32" : spec.compute());
    // What lies in a directory may change, so nothing is shared between jobs.
    node.set_key(TaskKey(node.spec(), {}, {.salt = input.salt}));
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
  node.set_key(TaskKey(node.spec(), {model.name()}, {.salt = std::string(salt)}));
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
