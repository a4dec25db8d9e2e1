// The tables that scheduling works on, and a draft of changes to them. Everything that is not
// terminal is in memory; the store holds the same records and more. A draft reads through to the
// state and collects edited copies, so that a transition that fails, or whose commit fails, leaves
// no trace.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/lwq/v1/admin_service.pb.h"
#include "proto/lwq/v1/event.pb.h"
#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/model.pb.h"
#include "proto/lwq/v1/record.pb.h"
#include "server/dispatch/ready_index.h"
#include "server/dispatch/shares.h"
#include "server/dispatch/tenant_options.h"
#include "server/store/tenant.h"

namespace lwq {

// When an event happens: by the clock on the wall, which records and people are told and which may
// be set, and by one that only runs, which leases and waits are measured by.
struct Moment {
  int64_t wall_us = 0;
  int64_t steady_us = 0;
};

// What a live lease last said. Not stored: after a restart every lease has one whole TTL. Times are
// steady ones.
struct LeaseStatus {
  int64_t epoch = 0;
  int64_t expires_us = 0;
  int64_t progress = 0;
  int64_t progress_us = 0;  // when it last rose
  double busy_seconds = 0;
  int64_t busy_us = 0;  // when that last rose
  double fraction = 0;
  std::string current;
  std::string waits_for;  // why it does not get on
  int64_t begun_us = 0;
  double expected_seconds = 0;  // what its tenant was charged when it began
};

struct DispatchOptions {
  int64_t lease_ttl_us = 30'000'000;
  int64_t heartbeat_us = 10'000'000;
  int64_t stall_us = 600'000'000;
  // A worker that is silent for so long is forgotten, and a task that no worker can run for so long
  // fails its jobs.
  int64_t gone_us = 3600'000'000;
  TenantSettings tenants;
};

// A worker that is silent for so long is lost: one that is idle is heard of at each long poll, at
// least every 20 s.
inline int64_t LostAfterUs(const DispatchOptions& options) {
  return 2 * std::max<int64_t>(options.lease_ttl_us, 30'000'000);
}

// A worker that is silent for so long is said to be: for so long it may be between its tasks and
// its next call, and one with a task is heard of at each heartbeat.
inline constexpr int64_t kBetweenCallsUs = 10'000'000;
inline int64_t SilentAfterUs(const DispatchOptions& options) {
  return std::max<int64_t>(2 * options.heartbeat_us, 5'000'000);
}
// An operator's cordon outlives a worker that is gone by so much: by then its name means another.
inline constexpr int64_t kCordonKeptUs = int64_t{30} * 24 * 3600 * 1'000'000;

// Edited and deleted records by key; nullopt: deleted.
template <typename T>
using Edits = std::map<std::string, std::optional<T>>;

// What one event changes; committed to the store in one transaction, then applied.
struct Changes {
  Edits<v1::JobRecord> jobs;
  std::map<std::string, int64_t> job_versions;  // that an edited job's row must have
  Edits<v1::TaskRecord> tasks;
  // Jobs that want a task which is there, by task. A task that thousands want is neither copied nor
  // written for one more: the job's own record names its tasks, and that is what a start goes by.
  std::map<std::string, std::vector<std::string>> joined;
  Edits<v1::WorkerRecord> workers;
  Edits<v1::Model> models;
  std::optional<v1::ServerRecord> server;
  std::vector<std::pair<std::string, v1::JobEvent>> events;  // job, event
  std::vector<v1::CacheRecord> cache_puts;
  std::vector<v1::Artifact> artifacts;                              // new
  std::vector<std::pair<std::string, v1::RequestRecord>> requests;  // new

  bool empty() const {
    return jobs.empty() && tasks.empty() && joined.empty() && workers.empty() && models.empty() &&
           !server && events.empty() && cache_puts.empty() && artifacts.empty() && requests.empty();
  }
};

// Something that happened to a task, counted once however many jobs want it.
struct TaskCount {
  std::string kind;
  v1::TaskEvent::State state;
  double seconds = 0;
};

// What has to happen once the changes are committed.
struct Effects {
  std::set<std::string> plan_jobs;      // run the planner for these
  std::set<std::string> rebuild_jobs;   // a blob is lost: build their graph again
  std::set<std::string> untold_tasks;   // TellJobs again
  std::set<std::string> admit_tenants;  // AdmitJobs: there may be room for jobs that are held
  std::set<std::string> touched_jobs;   // wake their watchers
  std::set<std::string> touched_models;
  int64_t tasks_ready = 0;  // wake as many waiting workers
  int64_t leases_expired = 0;
  std::vector<TaskCount> task_counts;
};

// How many there are of what metrics tell; kept with every change.
struct DispatchCounts {
  std::map<int, int> jobs;                   // by Job.State
  std::map<std::string, int> ready, leased;  // by kind
};
// Jobs of one tenant that have not ended.
struct TenantCounts {
  int at_work = 0;  // all but those that are held
  int held = 0;
  int queued = 0;  // by their state, held or not
  int leased = 0;  // tasks
};

inline bool IsTerminal(v1::Job::State state) {
  return state == v1::Job::SUCCEEDED || state == v1::Job::FAILED || state == v1::Job::CANCELLED;
}

// By priority, then age: least first.
using HeldJob = std::tuple<int, int64_t, std::string>;

// What a task is expected to take of a worker; a guess where nobody knows.
double ExpectedSeconds(const v1::TaskRecord& task, const v1::WorkerRecord* worker);

// What is told to people of so many workers or more may be so old: to ask each of them, at every
// look at a job, would take longer than all else.
inline constexpr size_t kManyWorkers = 64;
inline constexpr int64_t kRememberedUs = 1'000'000;

// What was counted of many workers, by work_estimate.cc.
struct WorkforceMemo {
  int64_t since_us = -1;  // by the steady clock; -1: nothing was
  int size = 0;
  double rate = 0;
  std::map<std::string, double> speeds;  // of all of them, by pace
};

// Why nobody takes tasks of a tenant and of equal needs, by task_wait.cc.
using WhyNobody = std::map<std::pair<std::string, TaskNeed>, std::string>;
struct WaitMemo {
  int64_t since_us = -1;  // by the steady clock; -1: nothing was
  WhyNobody why;
};

// Whether it may still be told; where not, it is empty and begins now.
template <typename Memo>
bool IsRemembered(Memo& memo, int64_t steady_us) {
  const int64_t age_us = steady_us - memo.since_us;
  if (memo.since_us >= 0 && age_us >= 0 && age_us < kRememberedUs) return true;
  memo = Memo{};
  memo.since_us = steady_us;
  return false;
}

// Not thread-safe.
class DispatchState {
 public:
  explicit DispatchState(const DispatchOptions& options)
      : options_(options), shares_(&options_.tenants) {}
  DispatchState(const DispatchState&) = delete;
  DispatchState& operator=(const DispatchState&) = delete;

  // Records as they are in the store, at start: workers, models and jobs first, then tasks. `now`
  // begins the TTL during which no lease that was live before the start is reaped.
  void Load(v1::JobRecord job);
  void Load(v1::TaskRecord task, Moment now);
  void Load(v1::WorkerRecord worker, Moment now);
  void Load(v1::Model model);
  void Load(v1::ServerRecord server) { server_ = std::move(server); }

  // Before an event: makes tasks ready whose time has come, notes which nobody can run. After a gap
  // in which the server itself did not look (it was stopped, or its disk was stuck) nobody's
  // silence counts: every lease has one whole TTL again.
  void AdvanceTo(Moment now);
  void Apply(Changes changes, Moment now);
  // How many tasks have become ready because their time had come, since this was last asked.
  int64_t TakeDue() { return ready_.TakeDue(); }

  const DispatchOptions& options() const { return options_; }
  const std::map<std::string, v1::JobRecord>& jobs() const { return jobs_; }
  const std::map<std::string, v1::TaskRecord>& tasks() const { return tasks_; }
  const std::map<std::string, v1::WorkerRecord>& workers() const { return workers_; }
  const std::map<std::string, v1::Model>& models() const { return models_; }
  const std::map<std::string, LeaseStatus>& leases() const { return leases_; }
  const v1::ServerRecord& server() const { return server_; }

  // Derived from the records.
  const ReadyIndex& ready() const { return ready_; }
  const DispatchCounts& counts() const { return counts_; }
  const TenantCounts& CountsOf(const std::string& tenant) const;
  // By tenant; those that have, or had, jobs or models.
  const std::map<std::string, TenantCounts>& tenants() const { return tenants_; }
  // A tenant's jobs that are held, in the order in which they are admitted.
  const std::set<HeldJob>& HeldJobsOf(const std::string& tenant) const;
  const Shares& shares() const { return shares_; }
  // No part of the state: kept between looks at it.
  WorkforceMemo& workforce(const std::string& numerics_class) const {
    return workforce_[numerics_class];
  }
  WaitMemo& wait_memo() const { return wait_memo_; }
  const std::set<std::string>& LeasesOf(const std::string& worker) const;
  // Tasks in the queue that some worker failed and that wait for another.
  const std::set<std::string>& refused() const { return refused_; }

  // What heartbeats change; not stored.
  LeaseStatus* MutableLease(const std::string& task);
  // Nothing is seen of one that has left: a call that was under way says no more than that it was.
  void SawWorker(const std::string& worker, int64_t steady_us);
  // 0: never.
  int64_t SeenUs(const std::string& worker) const;
  bool IsLost(const std::string& worker, int64_t steady_us) const {
    return SeenUs(worker) + LostAfterUs(options_) <= steady_us;
  }
  // A worker that lives has a task or asks for one: `by` more or fewer of its calls wait for a
  // task.
  void CountPoll(const std::string& worker, int by);
  // How people see it: LEFT, LOST, SILENT (on the way there), BUSY or READY. Nothing is decided by
  // SILENT.
  v1::Worker::State StateOf(const std::string& worker, int64_t steady_us) const;

 private:
  bool IsWanted(const v1::TaskRecord& task) const;
  Rank RankOf(const v1::TaskRecord& task);
  // Takes a task as it was out of what is derived, and puts it in as it is.
  void Unindex(const std::string& key);
  void Index(const std::string& key, Moment now);
  // When a task in the queue may be handed out, by the steady clock.
  int64_t ReadyAtUs(const v1::TaskRecord& task, Moment now);
  void CountJob(const std::string& name, int by);
  void ApplyJobs(Edits<v1::JobRecord>& edits, std::set<std::string>& tasks);
  void ApplyLeases(const Edits<v1::TaskRecord>& edits, Moment now);
  void BeginLease(const v1::TaskRecord& task, Moment now);

  const DispatchOptions options_;
  std::map<std::string, v1::JobRecord> jobs_;  // by name, not terminal
  std::map<std::string, v1::TaskRecord> tasks_;
  // While records are loaded: by task, the jobs that want it.
  std::map<std::string, std::vector<std::string>> wanted_by_;
  std::map<std::string, v1::WorkerRecord> workers_;  // by worker id
  std::map<std::string, v1::Model> models_;          // by name
  std::map<std::string, LeaseStatus> leases_;        // by task
  std::map<std::string, int64_t> seen_us_;           // by worker id
  std::map<std::string, int> polls_;                 // by worker id; not 0
  v1::ServerRecord server_;

  int64_t looked_us_ = -1;   // when the last event was
  int64_t matched_us_ = -1;  // when groups were last held against the workers
  ReadyIndex ready_;
  DispatchCounts counts_;
  Shares shares_;
  mutable std::map<std::string, WorkforceMemo> workforce_;  // by numerics class; empty: of any
  mutable WaitMemo wait_memo_;
  std::map<std::string, TenantCounts> tenants_;
  std::map<std::string, std::set<HeldJob>> held_;           // by tenant
  std::map<std::string, std::set<std::string>> leases_of_;  // tasks by worker id
  std::set<std::string> refused_;
  // Of tasks in the queue: ready_us as their records have it, and the steady time that it was taken
  // for.
  std::map<std::string, std::pair<int64_t, int64_t>> waits_;
  // Of tasks in the queue: what the first `num_jobs` of their jobs, of which `last` is the last,
  // make of their rank. A job that is added does not make all of them be looked at again.
  struct Best {
    int priority = 0;
    int64_t age_us = 0;
    int num_models = 0;
    int num_jobs = 0;
    std::string last;
  };
  std::map<std::string, Best> best_;
};

// One event's view of the state. `Edit` copies a record at the first call; pointers stay valid for
// the draft's life.
class Draft {
 public:
  Draft(const DispatchState& state, Moment now) : state_(state), now_(now) {}

  const DispatchState& state() const { return state_; }
  int64_t now_us() const { return now_.wall_us; }
  int64_t steady_us() const { return now_.steady_us; }

  const v1::JobRecord* FindJob(const std::string& name) const;
  const v1::TaskRecord* FindTask(const std::string& key) const;
  const v1::WorkerRecord* FindWorker(const std::string& id) const;
  const v1::Model* FindModel(const std::string& name) const;
  // Null when there is none.
  v1::JobRecord* EditJob(const std::string& name);
  v1::TaskRecord* EditTask(const std::string& key);
  v1::WorkerRecord* EditWorker(const std::string& id);
  v1::Model* EditModel(const std::string& name);

  v1::JobRecord& PutJob(v1::JobRecord job);
  v1::TaskRecord& PutTask(v1::TaskRecord task);
  v1::WorkerRecord& PutWorker(v1::WorkerRecord worker);
  v1::Model& PutModel(v1::Model model);
  void DeleteTask(const std::string& key) {
    changes.tasks[key] = std::nullopt;
    changes.joined.erase(key);
  }
  // The job wants the task, which is there. FindTask does not show it before the task is edited.
  void JoinTask(const std::string& key, const std::string& job);
  void DeleteWorker(const std::string& id) { changes.workers[id] = std::nullopt; }
  void DeleteModel(const std::string& name) { changes.models[name] = std::nullopt; }

  int64_t NextEpoch();
  // Gives the event the job's next sequence number and the draft's time.
  void PushEvent(v1::JobRecord& job, v1::JobEvent event);

  Changes changes;
  Effects effects;
  // What WhyItWaits found where workers are few: it asks each of the state, which stays as it is
  // for the draft's life.
  mutable WhyNobody why_nobody;
  // What tenants were handed in this draft, as Shares counts it, and how many tasks.
  std::map<std::string, std::pair<double, int64_t>> handed_out;

 private:
  const DispatchState& state_;
  const Moment now_;
};

}  // namespace lwq
