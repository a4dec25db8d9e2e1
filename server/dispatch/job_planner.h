// From stored results to a plan: the bridge between the records and the planner of the engine.
// Pure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/model.pb.h"
#include "proto/lwq/v1/task.pb.h"
#include "server/dispatch/plan_products.h"
#include "worker/engine/plan/memory_model.h"

namespace lwq {

// What the job's menu lets it quantize, by layer (-1 the head, -3 the embedding): each unit with
// its formats. Errors are the menu's.
absl::StatusOr<std::map<int, Products>> ProductsOf(const v1::QuantizeSpec& spec,
                                                   const v1::ModelManifest& manifest);

struct Feasibility {
  int64_t budget_bytes = 0;  // all in the budget's own measure
  int64_t smallest_bytes = 0;
  int64_t largest_bytes = 0;
  int64_t source_bytes = 0;
  MemoryForecast memory;  // of a worker, by kind of task
  std::vector<std::string> warnings;
};

// Everything that can be told from sizes alone: formats, budget, memory. `memory` says what the
// job's method and scorer do (job_graph.h, MemoryOf); the rest of it follows from the
// specification. Errors are those of CreateJob's contract.
absl::StatusOr<Feasibility> CheckFeasibility(const v1::QuantizeSpec& spec,
                                             const v1::ModelManifest& manifest,
                                             MemoryQuestion memory);

// What planning says next.
struct PlanStep {
  // Plans to measure before one can be chosen, with their formats in the same order; none when
  // `plan` is the choice.
  std::vector<v1::PlanTrial> trials;
  std::vector<v1::PlanSummary> formats;
  bool judge = false;  // those plans are to be held against each other on text that chose nothing
  // The choice, or what it would be without those trials.
  v1::PlanSummary plan;
};
// `scores`: one a layer, empty when the allocator needs none. `measured`: all trials so far, in
// order, with their KL set.
absl::StatusOr<PlanStep> NextPlanStep(const v1::QuantizeSpec& spec,
                                      const v1::ModelManifest& manifest,
                                      const std::vector<v1::ScoreResult>& scores,
                                      const std::vector<v1::PlanTrial>& measured);

// What a trial task found, in the trial that asked for it. INTERNAL "TRIAL_MISSING" when the output
// is another kind's: a KL that nobody measured would be the least of all.
absl::Status RecordTrial(const v1::TaskOutput& output, v1::PlanTrial& trial);

}  // namespace lwq
