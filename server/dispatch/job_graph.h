// A job's specification and its model's manifest -> tasks and what they depend on. Pure. The graph
// comes in two stages: all that the plan needs is known at submission, the rest when the plan
// stands.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/model.pb.h"
#include "proto/lwq/v1/record.pb.h"
#include "proto/lwq/v1/task.pb.h"

namespace lwq {

inline constexpr int kNoLayer = -2;

// A task as its job needs it. `record` has key, kind, phase, layer, spec, model and dependencies
// set, and for quantize tasks the cache key of each width; nothing of its state.
using TaskNode = v1::TaskRecord;

struct JobGraph {
  std::vector<TaskNode> tasks;  // a task comes after those it depends on
  // Keys of the tasks whose results the plan reads; empty for an evaluation job.
  std::vector<std::string> plan_tasks;
  // How many tasks the second stage will have at most; only for the progress shown before.
  int expected_tasks = 0;
};

struct GraphInput {
  std::string job;                              // jobs/{id}
  v1::JobSpec spec;                             // defaults filled in
  const v1::Model* model = nullptr;             // of a quantize job
  std::map<std::string, v1::Dataset> datasets;  // by name: all that the spec names
  v1::Capability method;
  v1::Capability scorer;
  bool scores_needed = true;  // the allocator reads scores
};

// Fills in what the caller left out.
void FillDefaults(const v1::ModelManifest& manifest, v1::QuantizeSpec& spec);
void FillDefaults(v1::Evaluation& evaluation);

// How many layers make one calibration segment: some thirty seconds of work on a small machine.
int LayersPerSegment(const v1::ModelManifest& manifest, int64_t num_tokens);

v1::Recipe RecipeOf(const v1::QuantizeSpec& spec);

// Everything down to the plan, and the evaluations of the source model.
JobGraph BuildFirstStage(const GraphInput& input);
// What follows from the plan: widths that are not measured yet, the artifact, its proof and its
// evaluations. Tasks of the first stage that it builds on are repeated (same keys).
JobGraph BuildSecondStage(const GraphInput& input, const v1::PlanSummary& plan);
// An EvaluateSpec job.
JobGraph BuildEvaluationGraph(const GraphInput& input);

// The task that verifies a model directory.
TaskNode BuildIngest(const v1::Model& model, absl::string_view salt);

// The names of the datasets that a specification reads.
std::vector<std::string> DatasetsOf(const v1::JobSpec& spec);

}  // namespace lwq
