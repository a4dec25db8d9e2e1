// The running state machine: decides under a lock, commits to the store, applies, and does what
// follows. The only writer of jobs, tasks, workers and models.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/blob/blob_store.h"
#include "server/dispatch/job_planner.h"
#include "server/dispatch/transitions.h"
#include "server/service/executor.h"
#include "server/service/hints.h"
#include "server/service/lease_waiters.h"
#include "server/service/request_log.h"
#include "server/service/server_metrics.h"
#include "server/service/tenant_bytes.h"
#include "server/store/store.h"

namespace lwq {

// What a graph is built from, with what it borrows.
struct GraphSource {
  v1::Model model;
  GraphInput input;  // input.model points to `model`
};

// Thread-safe. All calls may block on the store: from executors only, never from an RPC thread.
// `store`, `blobs`, `clock`, `metrics`, `cpu` outlive this.
class Scheduler {
 public:
  Scheduler(Store* store, BlobStore* blobs, Clock* clock, ServerMetrics* metrics, Executor* cpu,
            const DispatchOptions& options);

  // Reads all that is not terminal, and asks again for plans that were not finished.
  absl::Status Start();

  // Decides with `transition`, commits, applies, then does the effects. Nothing happens after an
  // error.
  absl::Status Run(const std::function<absl::Status(Draft&)>& transition);
  // The same for one of those that come by the thousand: all that wait for the store at one time
  // are one commit. `transition` reads records through its draft, where what the others do shows,
  // and may be called twice.
  absl::Status RunTogether(const std::function<absl::Status(Draft&)>& transition);
  // How many of these wait for the commit before theirs.
  int num_waiting() const;
  // Priority and labels of any job; what has ended meanwhile stays ended.
  absl::Status UpdateJob(const v1::UpdateJobRequest& request, const RequestMark& mark);
  // Looks at the state under its lock.
  void View(const std::function<void(const DispatchState&)>& look) const;

  absl::StatusOr<v1::HeartbeatResponse> Beat(const v1::HeartbeatRequest& request);
  void SawWorker(const std::string& worker);
  // See DispatchState.
  void CountPoll(const std::string& worker, int by);
  // Whether a task could be handed out now, to some worker.
  bool AnyReady() const;
  // Takes back expired leases.
  absl::Status Reap();
  // Several times a second: does what is owed, wakes polls for tasks whose time has come.
  void Tick();

  // A job as it is now, terminal or not. NOT_FOUND.
  absl::StatusOr<v1::JobRecord> GetJob(const std::string& name) const;
  // A job's row in the store; of one that has ended, the job. NOT_FOUND.
  absl::StatusOr<Record> GetJobRow(const std::string& name) const;
  absl::StatusOr<v1::Dataset> GetDataset(const std::string& name) const;
  absl::StatusOr<v1::Model> GetModel(const std::string& name) const;
  // Methods and scorers of all workers; one that has been silent for long is none any more.
  void Capabilities(std::vector<v1::Capability>& quantizers, std::vector<v1::Capability>& scorers,
                    std::vector<std::string>& families) const;

  // Reads what `spec` names. Errors are those of CreateJob. `engine`: of the job so far; null:
  // chosen among the workers.
  absl::StatusOr<std::unique_ptr<GraphSource>> MakeSource(
      const std::string& salt, const v1::JobSpec& spec,
      const v1::EngineClass* engine = nullptr) const;
  JobGraph BuildFirst(const GraphSource& source) const;
  // Results of these tasks whose blobs are all there; entries that lost one are deleted. Counted as
  // a job's looks for results of others are all but `seen`, what it looked for or made before; none
  // without it.
  absl::StatusOr<CachedResults> LookUp(
      const JobGraph& graph, const std::optional<std::set<std::string>>& seen = std::nullopt);

  TenantBytes& tenant_bytes() { return tenant_bytes_; }
  const TenantBytes& tenant_bytes() const { return tenant_bytes_; }
  Hints& hints() { return hints_; }
  LeaseWaiters& lease_waiters() { return lease_waiters_; }
  Store& store() const { return *store_; }
  BlobStore& blobs() const { return *blobs_; }
  Clock& clock() const { return *clock_; }
  ServerMetrics& metrics() const { return *metrics_; }
  int64_t NowUs() const;  // by the clock on the wall
  Moment Now() const;
  const DispatchOptions& options() const { return options_; }

  std::atomic<bool> draining{false};

 private:
  struct Waiting {
    const std::function<absl::Status(Draft&)>& transition;
    absl::Status status;
    bool done = false;
  };
  void CommitTogether(const std::vector<Waiting*>& batch);
  void DoEffects(const Effects& effects);
  // Each tries again for as long as what stops them may pass (a full disk, a busy store): a job
  // never waits for something that nobody does.
  void PlanJob(const std::string& name, int attempt);
  void Tell(const std::string& task, int attempt);
  void Admit(const std::string& tenant, int attempt);
  void Rebuild(const std::string& name, int attempt);
  std::set<std::string> KeysOf(const v1::JobRecord& job) const;
  // The class of workers that is to compute a job of this input.
  v1::EngineClass EngineFor(const GraphInput& input) const;
  void RetryLater(int attempt, std::function<void()> work);
  absl::Status FailFor(const std::string& name, const absl::Status& status);
  absl::Status ContinuePlan(const v1::JobRecord& job);
  // Of each, whether all its blobs are there.
  absl::StatusOr<std::vector<bool>> AreWhole(
      const std::vector<const v1::TaskOutput*>& outputs) const;
  // Keys of the job's finished tasks that have lost a blob. Blobs of which a worker says so are
  // read, all others looked for.
  absl::StatusOr<std::set<std::string>> LostTasks(const v1::JobRecord& job) const;
  absl::Status ReadThrough(const v1::TaskOutput& output) const;
  void CountChanges(const Changes& changes, const Effects& effects);

  Store* const store_;
  BlobStore* const blobs_;
  Clock* const clock_;
  ServerMetrics* const metrics_;
  Executor* const cpu_;
  const DispatchOptions options_;
  Hints hints_;
  LeaseWaiters lease_waiters_;
  TenantBytes tenant_bytes_;

  Mutex owed_mu_;
  std::multimap<absl::Duration, std::function<void()>> owed_ ABSL_GUARDED_BY(owed_mu_);  // by when

  mutable Mutex together_mu_;
  CondVar committed_;
  std::vector<Waiting*> together_ ABSL_GUARDED_BY(together_mu_);
  bool committing_ ABSL_GUARDED_BY(together_mu_) = false;

  Mutex commit_mu_;  // one commit at a time; taken before mu_
  mutable Mutex mu_;
  DispatchState state_ ABSL_GUARDED_BY(mu_);
};

v1::Failure ToFailure(const absl::Status& status);

}  // namespace lwq
