// Every change of scheduling state, as (draft, event) -> edits, events and effects in the draft. No
// clock, no threads, no I/O: the time is the draft's, cached results come with the event. After an
// error the draft is to be thrown away.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/lwq/v1/job_service.pb.h"
#include "proto/lwq/v1/worker_service.pb.h"
#include "server/dispatch/dispatch_state.h"
#include "server/dispatch/job_graph.h"

namespace lwq {

// Results by cache key (of tasks, and of each product of quantize tasks) whose blobs are all there.
using CachedResults = std::map<std::string, v1::TaskOutput>;

// ---- Jobs ----

// `job` has name, spec, priority, labels, warnings set; `salt` is that of the graph's input.
struct SubmitEvent {
  v1::Job job;
  std::string salt;
  JobGraph graph;
  CachedResults cached;
};
absl::Status SubmitJob(Draft& draft, SubmitEvent event);
// A terminal job, read from the store, begins again. Its finished work comes from `cached`.
absl::Status RetryJob(Draft& draft, v1::JobRecord job, const JobGraph& graph,
                      const CachedResults& cached);
// Builds the graph again in place, after a blob was lost or the job's class of workers has changed.
// `lost`: keys of the job's finished tasks that have lost one; they run again, for every job that
// shares them. After a few losses the job fails.
absl::Status RebuildJob(Draft& draft, const std::string& name, const JobGraph& graph,
                        const CachedResults& cached, const std::set<std::string>& lost = {});
// The server has looked, and nothing that the job's tasks read is lost: the failures of those who
// said so are their own.
void DismissDoubts(Draft& draft, const std::string& name);
// Priority and labels of an active job; NOT_FOUND when it is none. LABEL_INVALID when it would have
// more than kMaxLabels.
absl::Status UpdateJob(Draft& draft, const v1::UpdateJobRequest& request);
// The same on any job.
absl::Status ApplyUpdate(const v1::UpdateJobRequest& request, v1::Job& job);
// NOT_FOUND when the job is not active.
absl::Status CancelJob(Draft& draft, const std::string& name);
// The job waits until `graph`'s plan_tasks, which measure the last of `trials`, are done. `trials`
// are all of the job so far, `from` is the job as it was when the planning began. Nothing happens
// when the job ended or was built anew meanwhile; so with FinishPlan.
absl::Status StartTrials(Draft& draft, const v1::JobRecord& from,
                         const std::vector<v1::PlanTrial>& trials, const JobGraph& graph,
                         const CachedResults& cached);
absl::Status FinishPlan(Draft& draft, const v1::JobRecord& from, const v1::PlanSummary& plan,
                        const std::vector<v1::PlanTrial>& trials, const JobGraph& graph,
                        const CachedResults& cached);
void FailJob(Draft& draft, const std::string& name, const v1::Failure& failure);
// How many of a tenant's jobs are at work, as the draft has it.
int JobsAtWork(const Draft& draft, const std::string& tenant);
// Lets a tenant's jobs that are held begin, as many as its quota has room for, some at a time.
void AdmitJobs(Draft& draft, const std::string& tenant);

// ---- Models ----

absl::Status StartModel(Draft& draft, v1::Model model, const TaskNode& ingest);
// FAILED_PRECONDITION "MODEL_IN_USE" names the jobs.
absl::Status RemoveModel(Draft& draft, const std::string& name);

// ---- Workers ----

absl::Status RegisterWorker(Draft& draft, const v1::RegisterWorkerRequest& request);
// At most `max_tasks` leases; none when nothing is ready for this worker.
absl::StatusOr<std::vector<v1::Lease>> LeaseTasks(Draft& draft,
                                                  const v1::LeaseTasksRequest& request);
// The only event that changes nothing that is stored; it works on the state itself. `touched`: jobs
// of which watchers see something new.
absl::StatusOr<v1::HeartbeatResponse> Heartbeat(DispatchState& state, Moment now,
                                                const v1::HeartbeatRequest& request,
                                                std::set<std::string>& touched);
// The fenced writes: FAILED_PRECONDITION "LEASE_LOST" when (task, epoch, incarnation) do not hold
// the lease. A completion sent again is OK and changes nothing; one whose output is not of the
// task's kind is INVALID_ARGUMENT "OUTPUT_INVALID": the caller fails the task for it.
absl::Status CompleteTask(Draft& draft, const v1::CompleteTaskRequest& request);
absl::Status FailTask(Draft& draft, const v1::FailTaskRequest& request);
absl::Status ReleaseTasks(Draft& draft, const v1::ReleaseTasksRequest& request);
// Takes back leases that expired or stand still; fails what every worker refused or no worker can
// run; forgets workers that are gone.
void ReapLeases(Draft& draft);

inline constexpr int kMaxLabels = 32;

// ---- Shared by the above ----

// QUEUED -> RUNNING: the first of its tasks was handed out.
void StartJob(Draft& draft, v1::JobRecord& job);
// Unblocks tasks, starts the plan, commits the job: whatever follows from its tasks' states.
void AdvanceJob(Draft& draft, const std::string& name);
// How many of a task's jobs hear of it in one transaction: others are not kept waiting for longer
// than these take.
inline constexpr int kJobsToldAtOnce = 32;
// Tells the next of the jobs that have not heard of how a task stands, and advances them when it is
// done. Whether some are left is in the effects.
void TellJobs(Draft& draft, const std::string& key);
// The same for one job, which is to end, of all its tasks.
void HearOfTasks(Draft& draft, v1::JobRecord& job);
// Results of evaluation tasks, in the order of the graph.
void CollectEvaluations(const Draft& draft, v1::JobRecord& job);
// Marks a task done with its output, caches it, and advances all that waited for it.
void FinishTask(Draft& draft, const std::string& key, const v1::TaskOutput& output);
// The task will not succeed: every job and model that wants it fails.
void GiveUpTask(Draft& draft, const std::string& key, const v1::Failure& failure);
// A worker is gone with the task: back to the queue, or given up when it takes down every worker.
void LoseLease(Draft& draft, const std::string& key, absl::string_view why);
// FAILED_PRECONDITION "WORKER_UNKNOWN", "INCARNATION_SUPERSEDED".
absl::Status CheckWorker(const v1::WorkerRecord* worker, const std::string& worker_id,
                         const std::string& incarnation);
// The fence: the caller holds the lease that it speaks of. "LEASE_LOST".
absl::Status CheckLease(const v1::TaskRecord* task, const std::string& key, int64_t epoch,
                        const std::string& worker, const std::string& incarnation);
// A leased task goes back to the queue (or is forgotten when nobody wants it any more).
void RequeueTask(Draft& draft, const std::string& key, int64_t ready_us, absl::string_view why);
// Whether a job that is not being cancelled, or a model, wants the task.
bool IsWanted(const Draft& draft, const v1::TaskRecord& task);
// After a change of the task's state or of who wants it: ends the jobs being cancelled that only
// waited for it, and deletes a task that does not run and that nobody wants.
void ForgetUnwanted(Draft& draft, const std::string& key);
void PushTaskEvent(Draft& draft, v1::JobRecord& job, const v1::TaskRecord& task,
                   v1::TaskEvent::State state, absl::string_view detail);
google::protobuf::Timestamp ToTimestamp(int64_t us);
bool Contains(const google::protobuf::RepeatedPtrField<std::string>& list, const std::string& x);
void RemoveFrom(google::protobuf::RepeatedPtrField<std::string>& list, const std::string& x);
// How a task stands, for people.
v1::TaskStatus StatusOf(const v1::TaskRecord& task, bool cached);

}  // namespace lwq
