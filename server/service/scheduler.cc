#include "server/service/scheduler.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "server/dispatch/failure_policy.h"
#include "server/dispatch/progress.h"
#include "server/service/record_writes.h"
#include "worker/engine/plan/allocator.h"

namespace lwq {
namespace {

constexpr int kPage = 1000;

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

template <typename T>
absl::StatusOr<T> Parse(Table table, const Record& row) {
  T message;
  if (!message.ParseFromString(row.value)) {
    return CorruptFailure("STORE_CORRUPT", absl::StrCat("record ", row.key, " of ", NameOf(table),
                                                        " is not readable"));
  }
  return message;
}

const v1::Capability* FindCapability(const std::vector<v1::Capability>& list,
                                     const std::string& name) {
  for (const v1::Capability& capability : list) {
    if (capability.name() == name) return &capability;
  }
  return nullptr;
}

std::string Names(const std::vector<v1::Capability>& list) {
  std::string names;
  for (const v1::Capability& c : list) absl::StrAppend(&names, names.empty() ? "" : ", ", c.name());
  return names.empty() ? "none: no worker has registered" : names;
}

void Merge(const google::protobuf::RepeatedPtrField<v1::Capability>& from,
           std::vector<v1::Capability>& into) {
  for (const v1::Capability& capability : from) {
    if (FindCapability(into, capability.name()) == nullptr) into.push_back(capability);
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

absl::Status Scheduler::Start() {
  const int64_t now = NowUs();
  {
    MutexLock lock(&mu_);
    for (int s : {v1::Job::QUEUED, v1::Job::RUNNING, v1::Job::CANCELLING}) {
      LWQ_RETURN_IF_ERROR(ForEachRow(*store_, Table::kJobs, s, [&](const Record& row) {
        auto job = Parse<v1::JobRecord>(Table::kJobs, row);
        if (job.ok()) state_.Load(*std::move(job));
        return job.status();
      }));
    }
    LWQ_RETURN_IF_ERROR(ForEachRow(*store_, Table::kTasks, {}, [&](const Record& row) {
      auto task = Parse<v1::TaskRecord>(Table::kTasks, row);
      if (task.ok()) state_.Load(*std::move(task), now);
      return task.status();
    }));
    LWQ_RETURN_IF_ERROR(ForEachRow(*store_, Table::kWorkers, {}, [&](const Record& row) {
      auto worker = Parse<v1::WorkerRecord>(Table::kWorkers, row);
      if (worker.ok()) state_.Load(*std::move(worker));
      return worker.status();
    }));
    LWQ_RETURN_IF_ERROR(ForEachRow(*store_, Table::kModels, {}, [&](const Record& row) {
      auto model = Parse<v1::Model>(Table::kModels, row);
      if (model.ok()) state_.Load(*std::move(model));
      return model.status();
    }));
    LWQ_RETURN_IF_ERROR(ForEachRow(*store_, Table::kServer, {}, [&](const Record& row) {
      auto server = Parse<v1::ServerRecord>(Table::kServer, row);
      if (server.ok()) state_.Load(*std::move(server));
      return server.status();
    }));
    SetGauges();
  }
  return Run([](Draft& draft) {
    for (const auto& [name, job] : draft.state().jobs()) AdvanceJob(draft, name);
    return absl::OkStatus();
  });
}

absl::Status Scheduler::Run(const std::function<absl::Status(Draft&)>& transition) {
  Effects effects;
  {
    MutexLock commit_lock(&commit_mu_);
    const int64_t now = NowUs();
    Changes changes;
    {
      MutexLock lock(&mu_);
      Draft draft(state_, now);
      LWQ_RETURN_IF_ERROR(transition(draft));
      changes = std::move(draft.changes);
      effects = std::move(draft.effects);
    }
    if (!changes.empty()) {
      const absl::Time start = absl::Now();
      absl::Status committed = store_->Commit(ToWrites(changes));
      metrics_->StoreOp("commit", absl::ToDoubleSeconds(absl::Now() - start), committed);
      LWQ_RETURN_IF_ERROR(committed);
      CountChanges(changes);
      MutexLock lock(&mu_);
      state_.Apply(changes, now);
      SetGauges();
    }
  }
  DoEffects(effects);
  return absl::OkStatus();
}

void Scheduler::View(const std::function<void(const DispatchState&)>& look) const {
  MutexLock lock(&mu_);
  look(state_);
}

absl::StatusOr<v1::HeartbeatResponse> Scheduler::Beat(const v1::HeartbeatRequest& request) {
  MutexLock lock(&mu_);
  return Heartbeat(state_, NowUs(), request);
}

void Scheduler::SawWorker(const std::string& worker) {
  MutexLock lock(&mu_);
  state_.SawWorker(worker, NowUs());
}

bool Scheduler::AnyReady() const {
  MutexLock lock(&mu_);
  const int64_t now = NowUs();
  return std::any_of(state_.tasks().begin(), state_.tasks().end(), [&](const auto& entry) {
    return entry.second.state() == v1::TaskRecord::READY && entry.second.ready_us() <= now;
  });
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
    cpu_->PostAlways([this, job] { PlanJob(job); });
  }
  for (const std::string& job : effects.rebuild_jobs) {
    cpu_->PostAlways([this, job] { Rebuild(job); });
  }
  for (const std::string& job : effects.touched_jobs) hints_.Notify(job);
  for (const std::string& model : effects.touched_models) hints_.Notify(model);
  if (effects.tasks_ready) hints_.Notify(kLeaseTopic);
}

absl::StatusOr<v1::JobRecord> Scheduler::GetJob(const std::string& name) const {
  {
    MutexLock lock(&mu_);
    auto job = state_.jobs().find(name);
    if (job != state_.jobs().end()) {
      v1::JobRecord record = job->second;
      record.mutable_job()->mutable_progress()->set_current(CurrentWork(state_, record));
      return record;
    }
  }
  absl::StatusOr<Record> row = store_->Get(Table::kJobs, name);
  if (absl::IsNotFound(row.status())) {
    return Failure(absl::StatusCode::kNotFound, "NOT_FOUND", absl::StrCat("no job ", name));
  }
  LWQ_RETURN_IF_ERROR(row.status());
  return Parse<v1::JobRecord>(Table::kJobs, *row);
}

absl::StatusOr<v1::Dataset> Scheduler::GetDataset(const std::string& name) const {
  absl::StatusOr<Record> row = store_->Get(Table::kDatasets, name);
  if (absl::IsNotFound(row.status())) {
    return Failure(absl::StatusCode::kNotFound, "NOT_FOUND", absl::StrCat("no dataset ", name));
  }
  LWQ_RETURN_IF_ERROR(row.status());
  return Parse<v1::Dataset>(Table::kDatasets, *row);
}

absl::StatusOr<v1::Model> Scheduler::GetModel(const std::string& name) const {
  MutexLock lock(&mu_);
  auto model = state_.models().find(name);
  if (model == state_.models().end()) {
    return Failure(absl::StatusCode::kNotFound, "NOT_FOUND", absl::StrCat("no model ", name));
  }
  return model->second;
}

void Scheduler::Capabilities(std::vector<v1::Capability>& quantizers,
                             std::vector<v1::Capability>& scorers,
                             std::vector<std::string>& families) const {
  MutexLock lock(&mu_);
  for (const auto& [id, worker] : state_.workers()) {
    Merge(worker.registration().quantizers(), quantizers);
    Merge(worker.registration().scorers(), scorers);
    for (const std::string& family : worker.registration().families()) {
      if (std::find(families.begin(), families.end(), family) == families.end()) {
        families.push_back(family);
      }
    }
  }
}

absl::StatusOr<std::unique_ptr<GraphSource>> Scheduler::MakeSource(const std::string& job,
                                                                   const v1::JobSpec& spec) const {
  auto source = std::make_unique<GraphSource>();
  GraphInput& input = source->input;
  input.job = job;
  input.spec = spec;
  for (const std::string& name : DatasetsOf(spec)) {
    LWQ_ASSIGN_OR_RETURN(input.datasets[name], GetDataset(name));
  }
  if (!spec.has_quantize()) return source;
  LWQ_ASSIGN_OR_RETURN(source->model, GetModel(spec.quantize().model()));
  if (source->model.state() == v1::Model::REJECTED) {
    return PreconditionFailure(
        "MODEL_REJECTED",
        absl::StrCat(source->model.name(), " was rejected: ", source->model.failure().message()));
  }
  if (source->model.state() != v1::Model::ACTIVE) {
    return PreconditionFailure("MODEL_NOT_READY",
                               absl::StrCat(source->model.name(), " is still being verified"));
  }
  input.model = &source->model;
  std::vector<v1::Capability> quantizers, scorers;
  std::vector<std::string> families;
  Capabilities(quantizers, scorers, families);
  const v1::Capability* method = FindCapability(quantizers, spec.quantize().method());
  if (method == nullptr) {
    return InvalidFailure("METHOD_UNKNOWN",
                          absl::StrCat("there is no method \"", spec.quantize().method(),
                                       "\"; the methods are ", Names(quantizers)));
  }
  const v1::Capability* scorer = FindCapability(scorers, spec.quantize().scorer());
  if (scorer == nullptr) {
    return InvalidFailure("SCORER_UNKNOWN",
                          absl::StrCat("there is no scorer \"", spec.quantize().scorer(),
                                       "\"; the scorers are ", Names(scorers)));
  }
  input.method = *method;
  input.scorer = *scorer;
  LWQ_ASSIGN_OR_RETURN(input.products, ProductsOf(spec.quantize(), source->model.manifest()));
  LWQ_ASSIGN_OR_RETURN(const AllocatorDef* allocator, FindAllocator(spec.quantize().allocator()));
  input.scores_needed = allocator->needs_cost || allocator->needs_layer_score;
  input.max_trials = allocator->max_trials;
  return source;
}

JobGraph Scheduler::BuildFirst(const GraphSource& source) const {
  return source.input.spec.has_quantize() ? BuildFirstStage(source.input)
                                          : BuildEvaluationGraph(source.input);
}

absl::StatusOr<bool> Scheduler::HasBlobs(const v1::TaskOutput& output) const {
  for (const v1::NamedBlob& blob : output.blobs()) {
    LWQ_ASSIGN_OR_RETURN(const bool there,
                         blobs_->Has({blob.blob().sha256(), blob.blob().size_bytes()}));
    if (!there) return false;
  }
  return true;
}

absl::StatusOr<CachedResults> Scheduler::LookUp(const JobGraph& graph) {
  std::map<std::string, std::string> kinds;  // by key
  for (const TaskNode& node : graph.tasks) {
    if (node.product_keys().empty()) kinds[node.key()] = node.kind();
    for (const auto& [blob, key] : node.product_keys()) kinds[key] = node.kind();
  }
  std::vector<std::string> keys;
  for (const auto& [key, kind] : kinds) keys.push_back(key);
  LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows, store_->GetMany(Table::kCache, keys));
  CachedResults cached;
  std::vector<Write> drops;
  for (const Record& row : rows) {
    LWQ_ASSIGN_OR_RETURN(v1::CacheRecord entry, Parse<v1::CacheRecord>(Table::kCache, row));
    LWQ_ASSIGN_OR_RETURN(const bool whole, HasBlobs(entry.output()));
    metrics_->CacheLookup(kinds[row.key], whole ? "hit" : "incomplete");
    kinds.erase(row.key);
    if (whole) {
      cached[row.key] = std::move(*entry.mutable_output());
    } else {
      Write& drop = drops.emplace_back();
      drop.table = Table::kCache;
      drop.record.key = row.key;
      drop.remove = true;
    }
  }
  for (const auto& [key, kind] : kinds) metrics_->CacheLookup(kind, "miss");
  if (!drops.empty()) LWQ_RETURN_IF_ERROR(store_->Commit(drops));
  return cached;
}

absl::Status Scheduler::ContinuePlan(const v1::JobRecord& job) {
  const std::string& name = job.job().name();
  LWQ_ASSIGN_OR_RETURN(auto source, MakeSource(name, job.job().spec()));
  std::vector<v1::ScoreResult> scores;
  std::vector<v1::PlanTrial> trials(job.job().trials().begin(), job.job().trials().end());
  {
    MutexLock lock(&mu_);
    for (const std::string& key : job.tasks()) {
      auto task = state_.tasks().find(key);
      if (task == state_.tasks().end()) continue;
      const v1::TaskOutput& output = task->second.output();
      if (output.has_score()) scores.push_back(output.score());
      for (v1::PlanTrial& trial : trials) {
        if (trial.task() == key) LWQ_RETURN_IF_ERROR(RecordTrial(output, trial));
      }
    }
  }
  LWQ_ASSIGN_OR_RETURN(PlanStep step, NextPlanStep(source->input.spec.quantize(),
                                                   source->model.manifest(), scores, trials));
  const bool decided = step.trials.empty();
  const JobGraph graph = decided ? BuildLastStage(source->input, step.plan)
                                 : BuildTrialStage(source->input, step.formats, step.judge);
  for (size_t i = 0; i < step.trials.size(); ++i) {
    step.trials[i].set_task(graph.plan_tasks[i]);
    trials.push_back(std::move(step.trials[i]));
  }
  LWQ_ASSIGN_OR_RETURN(const CachedResults cached, LookUp(graph));
  return Run([&](Draft& draft) {
    return decided ? FinishPlan(draft, name, step.plan, trials, graph, cached)
                   : StartTrials(draft, name, trials, graph, cached);
  });
}

void Scheduler::PlanJob(const std::string& name) {
  auto plan = [&]() -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const v1::JobRecord job, GetJob(name));
    if (job.plan_state() != v1::JobRecord::RUNNING) return absl::OkStatus();
    return ContinuePlan(job);
  };
  absl::Status status = plan();
  if (status.ok()) return;
  spdlog::warn("planning {} failed: {}", name, LogSafe(status.ToString()));
  if (IsRetryable(status) && !draining) {
    clock_->SleepFor(absl::Milliseconds(200));
    cpu_->PostAlways([this, name] { PlanJob(name); });
    return;
  }
  Run([&](Draft& draft) {
    FailJob(draft, name, ToFailure(status));
    return absl::OkStatus();
  }).IgnoreError();
}

void Scheduler::Rebuild(const std::string& name) {
  auto rebuild = [&]() -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const v1::JobRecord job, GetJob(name));
    LWQ_ASSIGN_OR_RETURN(auto source, MakeSource(name, job.job().spec()));
    const JobGraph graph = BuildFirst(*source);
    LWQ_ASSIGN_OR_RETURN(const CachedResults cached, LookUp(graph));
    return Run([&](Draft& draft) { return RebuildJob(draft, name, graph, cached); });
  };
  absl::Status status = rebuild();
  if (status.ok()) return;
  Run([&](Draft& draft) {
    FailJob(draft, name, ToFailure(status));
    return absl::OkStatus();
  }).IgnoreError();
}

void Scheduler::CountChanges(const Changes& changes) {
  for (const auto& [job, event] : changes.events) {
    if (event.has_task()) {
      metrics_->TaskEvent(event.task().kind(), event.task().state(), event.task().seconds());
    } else if (event.has_state() && IsTerminal(event.state().to())) {
      const v1::Job& done = event.state().job();
      metrics_->JobFinished(
          event.state().to(), done.failure().blame(),
          static_cast<double>(ToMicros(done.end_time()) - ToMicros(done.create_time())) / 1e6);
    }
  }
}

void Scheduler::SetGauges() {
  StateCounts counts;
  for (const auto& [name, job] : state_.jobs()) ++counts.jobs[job.job().state()];
  for (const auto& [key, task] : state_.tasks()) {
    if (task.state() == v1::TaskRecord::READY) ++counts.ready[task.kind()];
    if (task.state() == v1::TaskRecord::LEASED) ++counts.leased[task.kind()];
  }
  metrics_->SetCounts(counts);
}

}  // namespace lwq
