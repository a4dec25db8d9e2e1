// A job's specification and its model's manifest -> tasks and what they depend on. Pure. The graph
// comes in stages: what scores the layers is known at submission; then, where the allocator wants
// plans measured, one stage for each round of them; the rest when the plan stands.
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
#include "server/dispatch/plan_products.h"
#include "worker/engine/plan/memory_model.h"

namespace lwq {

inline constexpr int kNoLayer = -2;

// A task as its job needs it. `record` has key, kind, phase, layer, spec, model and dependencies
// set, and for quantize tasks the cache key of each product; nothing of its state.
using TaskNode = v1::TaskRecord;

struct JobGraph {
  std::vector<TaskNode> tasks;  // a task comes after those it depends on
  // Keys of the tasks that planning waits for; empty for an evaluation job.
  std::vector<std::string> plan_tasks;
  // How many tasks later stages will have at most; only for the progress shown before.
  int expected_tasks = 0;
  // What later stages are expected to compute, by phase.
  std::vector<v1::PhaseWork> later;
  v1::EngineClass engine;  // of those that compute it
};

struct GraphInput {
  std::string salt;                             // of what the job alone may use: SaltOf
  v1::JobSpec spec;                             // defaults filled in
  const v1::Model* model = nullptr;             // of a quantize job
  std::map<std::string, v1::Dataset> datasets;  // by name: all that the spec names
  v1::Capability method;
  v1::Capability scorer;
  bool scores_needed = true;         // the allocator reads scores
  int max_trials = 0;                // how many plans the allocator may want measured
  std::map<int, Products> products;  // of a quantize job: job_planner.h, ProductsOf
  MemoryForecast memory;             // of a worker, by kind of task
  v1::EngineClass engine;            // who computes it
};

// How many layers make one calibration segment: some thirty seconds of work on a small machine, and
// two at least.
int LayersPerSegment(const v1::ModelManifest& manifest, int64_t num_tokens);

// `spec` has all of its method's options (job_options.h).
v1::Recipe RecipeOf(const v1::QuantizeSpec& spec);

// Of what a job alone may use: no other job's, though one have the same name later.
std::string SaltOf(const v1::JobRecord& record);
// What keeps a quantize job's results apart from those of others (KeyScope.salt). Tenants share
// none: that a result is there would tell one that another has the same model.
std::string KeySaltOf(const GraphInput& input);

// Whether the job runs the source model over calibration text.
bool RunsSource(const GraphInput& input);
// What of a worker's memory the method and the scorer decide.
MemoryQuestion MemoryOf(const GraphInput& input);

// Everything down to the scores, and the evaluations of the source model. Later stages repeat the
// tasks of this one that they build on (same keys).
JobGraph BuildFirstStage(const GraphInput& input);
// Measures each of `plans` and quantizes what they need; plan_tasks are the trials, in
// the order of `plans`. `judge`: on the text that chooses nothing.
JobGraph BuildTrialStage(const GraphInput& input, const std::vector<v1::PlanSummary>& plans,
                         bool judge);
// What follows from the plan: products that are not computed yet, the artifact, its proof and its
// evaluations.
JobGraph BuildLastStage(const GraphInput& input, const v1::PlanSummary& plan);
// What of an evaluation its dataset and what was asked decide.
v1::EvaluateTask EvaluationOf(const v1::Dataset& dataset, const v1::Evaluation& evaluation);
// An EvaluateSpec job.
JobGraph BuildEvaluationGraph(const GraphInput& input);

// The task that verifies a model directory.
TaskNode BuildIngest(const v1::Model& model, absl::string_view salt);

// The names of the datasets that a specification reads.
std::vector<std::string> DatasetsOf(const v1::JobSpec& spec);

}  // namespace lwq
