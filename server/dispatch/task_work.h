// What each task of a job has to compute, counted by the planner's work model. Pure.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/record.pb.h"
#include "proto/lwq/v1/task.pb.h"
#include "server/dispatch/job_graph.h"
#include "worker/engine/plan/work_model.h"

namespace lwq {

// English has about so many bytes per token.
inline constexpr double kBytesPerToken = 4;

// Of the tasks of one quantize job.
class WorkCounter {
 public:
  explicit WorkCounter(const GraphInput& input);

  // Operations of a task as the graph has it; 0 where nobody can say.
  double Operations(const v1::TaskSpec& spec) const;
  // What later stages are expected to add before the plan stands: trials, files, their proof and
  // measurement, and quantizing where the first stage has none of it.
  std::vector<v1::PhaseWork> Later(bool quantizes) const;

 private:
  Work WorkOf(const v1::TaskSpec& spec) const;
  Work QuantizeWork(const v1::QuantizeTask& task) const;
  Work ScoreWork(const v1::ScoreTask& task) const;
  Work TrialWork() const;
  double FileBytes() const;

  const GraphInput& input_;
  ModelInventory inventory_;  // without units where it could not be read
  std::unique_ptr<WorkModel> model_;
};

// What tells tasks apart that a worker does at a pace of their own: the kind, and the method or
// scorer, and the type it computes in where that is not F32. "quantize gptq", "trial bf16".
std::string PaceOf(const v1::TaskSpec& spec);

// Of the operations of the whole task, those that the cache left to do.
double OperationsLeft(const v1::TaskRecord& task);

}  // namespace lwq
