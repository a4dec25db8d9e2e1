// How much of a job's work is done, and how long the rest takes. Pure. Work is counted in the
// operations of its tasks (task_work.h); seconds come of what each worker measured of itself when
// it started, corrected by the pace at which it finished tasks of the kind so far, and of how far
// it is with those that it has.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/job_service.pb.h"
#include "proto/lwq/v1/record.pb.h"
#include "server/dispatch/dispatch_state.h"

namespace lwq {

// Operations of one phase of a job. What the cache had counts for neither.
struct PhaseCount {
  double done = 0;
  double left = 0;
  int tasks_left = 0;
  std::optional<double> seconds_left;  // unset without a worker that has measured itself
};
struct WorkCount {
  std::map<int, PhaseCount> phases;  // by v1::Phase
  double done = 0;
  double left = 0;
  std::optional<double> seconds_left;

  // Of the work; unset where nothing was counted.
  std::optional<double> fraction() const {
    if (done + left <= 0) return std::nullopt;
    return done / (done + left);
  }
};
WorkCount CountWork(const Draft& draft, const v1::JobRecord& job);
// The operations alone, which is cheaper. A task whose lease this event ends counts as far as it
// was.
WorkCount CountOperations(const Draft& draft, const v1::JobRecord& job);

// The whole of a job that has just been submitted, with what later stages are expected to add.
v1::WorkForecast ForecastWork(const Draft& draft, const v1::JobRecord& job,
                              const std::vector<v1::PhaseWork>& later);

// What a worker took for a task, for its next ones.
void NotePace(const v1::TaskRecord& task, double seconds, v1::WorkerRecord& worker);

// Of a job's tasks that workers have, in the order of the job's tasks; at most `limit`.
std::vector<v1::RunningTask> RunningTasks(const Draft& draft, const v1::JobRecord& job,
                                          size_t limit);
// The same of a worker's tasks, with the jobs that want them.
std::vector<v1::RunningTask> RunningTasksOf(const Draft& draft, const std::string& worker);

// What of a task changes without an event: how far it is, why it waits.
void AddLiveStatus(const Draft& draft, const v1::TaskRecord& task, v1::TaskStatus& status);

// Fills what of the job's progress changes without an event: what runs now, how far it is, how long
// the rest takes. Of one that has ended, nothing.
void AddLiveProgress(const Draft& draft, v1::JobRecord& job);

}  // namespace lwq
