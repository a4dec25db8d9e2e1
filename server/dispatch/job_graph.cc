#include "server/dispatch/job_graph.h"

#include <algorithm>
#include <utility>

#include "server/dispatch/task_key.h"

namespace lwq {

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
