#include "server/service/scheduler.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/retry.h"
#include "base/status_macros.h"
#include "server/dispatch/failure_policy.h"
#include "server/dispatch/progress.h"
#include "server/dispatch/work_estimate.h"
#include "server/service/event_log.h"
#include "server/service/record_writes.h"

namespace lwq {
namespace {

constexpr int kPage = 1000;
constexpr RetryPolicy kRetryPolicy = {.first_wait = absl::Milliseconds(200),
                                      .longest_wait = absl::Seconds(30)};

// Every row of a table, page by page.
absl::Status ForEachRow(Store& store, Table table, std::optional<int> state,
                        const std::function<absl::Status(const Record&)>& visit) {
  ListQuery query;
  query.state = state;
  query.limit = kPage;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows, store.List(table, query));
    for (const Record& row : rows) LWQ_RETURN_IF_ERROR(visit(row));
    if (static_cast<int>(rows.size()) < kPage) return absl::OkStatus();
    query.after_key = rows.back().key;
  }
}

}  // namespace

v1::Failure ToFailure(const absl::Status& status) {
  v1::Failure failure;
  failure.set_reason(ReasonOf(status));
  failure.set_message(std::string(status.message()));
  failure.set_code(static_cast<int>(status.code()));
  failure.set_retryable(IsRetryable(status));
  failure.set_blame(BlameOf(failure.reason(), failure.code()));
  return failure;
}

Scheduler::Scheduler(Store* store, BlobStore* blobs, Clock* clock, ServerMetrics* metrics,
                     Executor* cpu, const DispatchOptions& options)
    : store_(store),
      blobs_(blobs),
      clock_(clock),
      metrics_(metrics),
      cpu_(cpu),
      options_(options),
      state_(options) {}

int64_t Scheduler::NowUs() const { return absl::ToUnixMicros(clock_->Now()); }

Moment Scheduler::Now() const {
  return {.wall_us = NowUs(), .steady_us = absl::ToInt64Microseconds(clock_->Steady())};
}

absl::Status Scheduler::Start() {
  const Moment now = Now();
  LWQ_RETURN_IF_ERROR(tenant_bytes_.Load(*store_));
  {
    MutexLock lock(&mu_);
    LWQ_RETURN_IF_ERROR(ForEachRow(*store_, Table::kWorkers, {}, [&](const Record& row) {
      auto worker = ParseRecord<v1::WorkerRecord>(Table::kWorkers, row);
      if (worker.ok()) state_.Load(*std::move(worker), now);
      return worker.status();
    }));
    LWQ_RETURN_IF_ERROR(ForEachRow(*store_, Table::kModels, {}, [&](const Record& row) {
      auto model = ParseRecord<v1::Model>(Table::kModels, row);
      if (model.ok()) state_.Load(*std::move(model));
      return model.status();
    }));
    for (int s : {v1::Job::QUEUED, v1::Job::RUNNING, v1::Job::CANCELLING}) {
      LWQ_RETURN_IF_ERROR(ForEachRow(*store_, Table::kJobs, s, [&](const Record& row) {
        auto job = ParseRecord<v1::JobRecord>(Table::kJobs, row);
        if (job.ok()) state_.Load(*std::move(job));
        return job.status();
      }));
    }
    LWQ_RETURN_IF_ERROR(ForEachRow(*store_, Table::kTasks, {}, [&](const Record& row) {
      auto task = ParseRecord<v1::TaskRecord>(Table::kTasks, row);
      if (task.ok()) state_.Load(*std::move(task), now);
      return task.status();
    }));
    LWQ_RETURN_IF_ERROR(ForEachRow(*store_, Table::kServer, {}, [&](const Record& row) {
      auto server = ParseRecord<v1::ServerRecord>(Table::kServer, row);
      if (server.ok()) state_.Load(*std::move(server));
      return server.status();
    }));
  }
  Failpoint("start.loaded");
  return Run([](Draft& draft) {
    for (const auto& [name, job] : draft.state().jobs()) {
      AdvanceJob(draft, name);
      if (job.rebuilding() || job.inputs_doubted()) draft.effects.rebuild_jobs.insert(name);
    }
    for (const auto& [key, task] : draft.state().tasks()) {
      if (!task.untold().empty()) draft.effects.untold_tasks.insert(key);
    }
    // The settings may have changed.
    for (const auto& [tenant, counts] : draft.state().tenants()) {
      if (counts.held > 0) draft.effects.admit_tenants.insert(tenant);
    }
    return absl::OkStatus();
  });
}

absl::Status Scheduler::Run(const std::function<absl::Status(Draft&)>& transition) {
  Effects effects;
  {
    MutexLock commit_lock(&commit_mu_);
    const Moment now = Now();
    Changes changes;
    {
      MutexLock lock(&mu_);
      state_.AdvanceTo(now);
      Draft draft(state_, now);
      LWQ_RETURN_IF_ERROR(transition(draft));
      changes = std::move(draft.changes);
      effects = std::move(draft.effects);
    }
    if (!changes.empty()) {
      const absl::Duration start = clock_->Steady();
      Failpoint("commit.before");
      if (!changes.artifacts.empty()) Failpoint("artifact.before_commit");
      absl::Status committed = store_->Commit(ToWrites(changes));
      metrics_->StoreOp("commit", absl::ToDoubleSeconds(clock_->Steady() - start), committed);
      LWQ_RETURN_IF_ERROR(committed);
      Failpoint("commit.after");
      if (!changes.artifacts.empty()) Failpoint("artifact.after_commit");
      CountChanges(changes, effects);
      for (const v1::Artifact& artifact : changes.artifacts) {
        tenant_bytes_.Add(TenantOf(artifact), artifact.total_bytes());
      }
      MutexLock lock(&mu_);
      // A lease begins when the worker can hear of it, however long the commit took.
      state_.Apply(std::move(changes), Now());
    }
  }
  DoEffects(effects);
  return absl::OkStatus();
}

absl::Status Scheduler::RunTogether(const std::function<absl::Status(Draft&)>& transition) {
  Waiting mine{transition};
  std::vector<Waiting*> batch;
  {
    MutexLock lock(&together_mu_);
    together_.push_back(&mine);
    while (committing_ && !mine.done) committed_.Wait(&together_mu_);
    if (mine.done) return mine.status;
    // The first to wake up does it for all who came meanwhile.
    committing_ = true;
    batch.swap(together_);
  }
  CommitTogether(batch);
  MutexLock lock(&together_mu_);
  for (Waiting* waiting : batch) waiting->done = true;
  committing_ = false;
  committed_.SignalAll();
  return mine.status;
}

int Scheduler::num_waiting() const {
  MutexLock lock(&together_mu_);
  return static_cast<int>(together_.size());
}

void Scheduler::CommitTogether(const std::vector<Waiting*>& batch) {
  bool decided = false;
  const absl::Status status = Run([&](Draft& draft) -> absl::Status {
    for (const Waiting* waiting : batch) LWQ_RETURN_IF_ERROR(waiting->transition(draft));
    decided = true;
    return absl::OkStatus();
  });
  // One that is refused, or that the store refuses for its own sake, is no matter of the others.
  const bool alone = batch.size() > 1 && !status.ok() && (!decided || absl::IsAborted(status));
  for (Waiting* waiting : batch) waiting->status = alone ? Run(waiting->transition) : status;
}

absl::Status Scheduler::UpdateJob(const v1::UpdateJobRequest& request, const RequestMark& mark) {
  while (true) {
    absl::Status updated = Run([&](Draft& draft) {
      RememberRequest(mark, request.name(), draft);
      return lwq::UpdateJob(draft, request);
    });
    if (!absl::IsNotFound(updated)) return updated;
    // It is not active, so its row is what it is; a write that another has overtaken is refused.
    LWQ_ASSIGN_OR_RETURN(Record row, GetJobRow(request.name()));
    LWQ_ASSIGN_OR_RETURN(v1::JobRecord record, ParseRecord<v1::JobRecord>(Table::kJobs, row));
    LWQ_RETURN_IF_ERROR(ApplyUpdate(request, *record.mutable_job()));
    record.SerializeToString(&row.value);
    std::vector<Write> writes;
    {
      MutexLock lock(&mu_);
      Draft draft(state_, Now());
      RememberRequest(mark, request.name(), draft);
      writes = ToWrites(draft.changes);
    }
    writes.push_back({.table = Table::kJobs, .record = row, .expected_version = row.version});
    updated = store_->Commit(writes);
    if (ReasonOf(updated) != reasons::kVersionConflict.name) return updated;
    // The job's row has changed, or another call has used the request_id: then it is no use to try.
    LWQ_ASSIGN_OR_RETURN(const std::string replayed, FindRequest(*store_, mark));
    if (!replayed.empty()) return absl::OkStatus();
  }
}

void Scheduler::View(const std::function<void(const DispatchState&)>& look) const {
  MutexLock lock(&mu_);
  look(state_);
}

absl::StatusOr<v1::HeartbeatResponse> Scheduler::Beat(const v1::HeartbeatRequest& request) {
  std::set<std::string> touched;
  absl::StatusOr<v1::HeartbeatResponse> response;
  {
    MutexLock lock(&mu_);
    const Moment now = Now();
    state_.AdvanceTo(now);
    response = Heartbeat(state_, now, request, touched);
  }
  for (const std::string& job : touched) hints_.Notify(ProgressTopic(job));
  return response;
}

void Scheduler::SawWorker(const std::string& worker) {
  MutexLock lock(&mu_);
  state_.SawWorker(worker, Now().steady_us);
}

void Scheduler::CountPoll(const std::string& worker, int by) {
  MutexLock lock(&mu_);
  state_.CountPoll(worker, by);
}

bool Scheduler::AnyReady() const {
  MutexLock lock(&mu_);
  return state_.ready().size() > 0;
}

void Scheduler::Tick() {
  int64_t ready = 0;
  {
    MutexLock lock(&mu_);
    state_.AdvanceTo(Now());
    ready = state_.TakeDue();  // with those that other calls have met since the last tick
  }
  if (ready > 0) lease_waiters_.WakeFor(ready);
  std::vector<std::function<void()>> due;
  {
    MutexLock lock(&owed_mu_);
    const auto end = owed_.upper_bound(clock_->Steady());
    for (auto it = owed_.begin(); it != end; ++it) due.push_back(std::move(it->second));
    owed_.erase(owed_.begin(), end);
  }
  for (std::function<void()>& work : due) cpu_->PostAlways(std::move(work));
}

absl::Status Scheduler::Reap() {
  int64_t expired = 0;
  absl::Status status = Run([&](Draft& draft) {
    ReapLeases(draft);
    expired = draft.effects.leases_expired;
    return absl::OkStatus();
  });
  if (status.ok()) metrics_->LeasesExpired(expired);
  return status;
}

void Scheduler::DoEffects(const Effects& effects) {
  for (const std::string& job : effects.plan_jobs) {
    cpu_->PostAlways([this, job] { PlanJob(job, 0); });
  }
  for (const std::string& job : effects.rebuild_jobs) {
    cpu_->PostAlways([this, job] { Rebuild(job, 0); });
  }
  for (const std::string& task : effects.untold_tasks) {
    cpu_->PostAlways([this, task] { Tell(task, 0); });
  }
  for (const std::string& tenant : effects.admit_tenants) {
    cpu_->PostAlways([this, tenant] { Admit(tenant, 0); });
  }
  for (const std::string& job : effects.touched_jobs) hints_.Notify(job);
  for (const std::string& model : effects.touched_models) hints_.Notify(model);
  if (effects.tasks_ready > 0) lease_waiters_.WakeFor(effects.tasks_ready);
}

void Scheduler::Tell(const std::string& task, int attempt) {
  absl::Status status = Run([&](Draft& draft) {
    TellJobs(draft, task);
    return absl::OkStatus();
  });
  if (status.ok()) return;
  spdlog::warn("telling jobs of a task: {}", LogSafe(status.ToString()));
  RetryLater(attempt, [=, this] { Tell(task, attempt + 1); });
}

void Scheduler::Admit(const std::string& tenant, int attempt) {
  absl::Status status = Run([&](Draft& draft) {
    AdmitJobs(draft, tenant);
    return absl::OkStatus();
  });
  if (status.ok()) return;
  spdlog::warn("admitting jobs of tenant {}: {}", tenant, LogSafe(status.ToString()));
  RetryLater(attempt, [=, this] { Admit(tenant, attempt + 1); });
}

absl::StatusOr<Record> Scheduler::GetJobRow(const std::string& name) const {
  absl::StatusOr<Record> row = store_->Get(Table::kJobs, name);
  if (absl::IsNotFound(row.status())) {
    return Failure(reasons::kNotFound, absl::StrCat("no job ", name));
  }
  return row;
}

absl::StatusOr<v1::JobRecord> Scheduler::GetJob(const std::string& name) const {
  {
    MutexLock lock(&mu_);
    auto job = state_.jobs().find(name);
    if (job != state_.jobs().end()) {
      v1::JobRecord record = job->second;
      record.mutable_job()->mutable_progress()->set_current(CurrentWork(state_, record));
      AddLiveProgress(Draft(state_, Now()), record);
      v1::Job& live = *record.mutable_job();
      if (live.progress().current().empty() && !live.queue_detail().empty()) {
        live.mutable_progress()->set_current(live.queue_detail());
      }
      return record;
    }
  }
  LWQ_ASSIGN_OR_RETURN(const Record row, GetJobRow(name));
  return ParseRecord<v1::JobRecord>(Table::kJobs, row);
}

absl::StatusOr<v1::Dataset> Scheduler::GetDataset(const std::string& name) const {
  absl::StatusOr<Record> row = store_->Get(Table::kDatasets, name);
  if (absl::IsNotFound(row.status())) {
    return Failure(reasons::kNotFound, absl::StrCat("no dataset ", name));
  }
  LWQ_RETURN_IF_ERROR(row.status());
  return ParseRecord<v1::Dataset>(Table::kDatasets, *row);
}

absl::StatusOr<v1::Model> Scheduler::GetModel(const std::string& name) const {
  MutexLock lock(&mu_);
  auto model = state_.models().find(name);
  if (model == state_.models().end()) {
    return Failure(reasons::kNotFound, absl::StrCat("no model ", name));
  }
  return model->second;
}

absl::Status Scheduler::FailFor(const std::string& name, const absl::Status& status) {
  return Run([&](Draft& draft) {
    FailJob(draft, name, ToFailure(status));
    return absl::OkStatus();
  });
}

void Scheduler::RetryLater(int attempt, std::function<void()> work) {
  const absl::Duration wait = WaitAfter(kRetryPolicy, attempt);
  MutexLock lock(&owed_mu_);
  owed_.emplace(clock_->Steady() + wait, std::move(work));
}

void Scheduler::CountChanges(const Changes& changes, const Effects& effects) {
  for (const TaskCount& count : effects.task_counts) {
    metrics_->TaskEvent(count.kind, count.state, count.seconds);
  }
  for (const auto& [job, event] : changes.events) {
    LogEvent(job, event);
    // What the cache spares, and the plan, are a job's own; all else was counted above, once.
    if (event.has_task() &&
        (event.task().state() == v1::TaskEvent::CACHED || event.task().kind() == "plan")) {
      metrics_->TaskEvent(event.task().kind(), event.task().state(), event.task().seconds());
    } else if (event.has_state() && IsTerminal(event.state().to())) {
      const v1::Job& done = event.state().job();
      metrics_->JobFinished(
          done,
          static_cast<double>(ToMicros(done.end_time()) - ToMicros(done.create_time())) / 1e6);
    }
  }
}

}  // namespace lwq
