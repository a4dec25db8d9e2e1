// The scheduler's graphs: what they are built from, what the cache knows of them, and building them
// on after a plan or a loss.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "records/canonical.h"
#include "server/dispatch/task_match.h"
#include "server/service/record_writes.h"
#include "server/service/scheduler.h"
#include "worker/engine/plan/allocator.h"

namespace lwq {
namespace {

// Whether what failed may succeed later without anybody changing what was asked.
bool PassesByItself(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return IsRetryable(status) || reason == "STORE_FULL" || reason == "STORAGE_FULL";
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

v1::EngineClass Scheduler::ChooseEngine() const {
  std::map<std::string, std::pair<int, v1::EngineClass>> classes;  // how many, by what they are
  MutexLock lock(&mu_);
  const int64_t now = Now().steady_us;
  for (const auto& [id, worker] : state_.workers()) {
    const v1::EngineClass engine = EngineOf(worker.registration());
    auto& [count, found] = classes[CanonicalBytes(engine)];
    found = engine;
    // One that is there outweighs any number of those that were.
    const bool there = !state_.IsLost(id, now) && !worker.cordoned();
    count += there ? 1'000'000 : 1;
  }
  const v1::EngineClass* most = nullptr;
  int best = 0;
  for (const auto& [bytes, entry] : classes) {
    if (entry.first <= best) continue;
    best = entry.first;
    most = &entry.second;
  }
  return most == nullptr ? v1::EngineClass() : *most;
}

bool Scheduler::AnyWorkerOf(const v1::EngineClass& engine) const {
  const std::string wanted = CanonicalBytes(engine);
  MutexLock lock(&mu_);
  const int64_t now = Now().steady_us;
  return std::any_of(state_.workers().begin(), state_.workers().end(), [&](const auto& worker) {
    return !state_.IsLost(worker.first, now) && !worker.second.cordoned() &&
           CanonicalBytes(EngineOf(worker.second.registration())) == wanted;
  });
}

absl::StatusOr<std::unique_ptr<GraphSource>> Scheduler::MakeSource(const std::string& job,
                                                                   const v1::JobSpec& spec,
                                                                   const v1::EngineClass* engine,
                                                                   bool choose_again) const {
  auto source = std::make_unique<GraphSource>();
  GraphInput& input = source->input;
  input.job = job;
  input.spec = spec;
  const bool keep = engine != nullptr && (!choose_again || AnyWorkerOf(*engine));
  input.engine = keep ? *engine : ChooseEngine();
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
  LWQ_ASSIGN_OR_RETURN(
      const Feasibility feasible,
      CheckFeasibility(spec.quantize(), source->model.manifest(), RunsSource(input)));
  input.memory_bytes = feasible.memory_bytes;
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
    LWQ_ASSIGN_OR_RETURN(v1::CacheRecord entry, ParseRecord<v1::CacheRecord>(Table::kCache, row));
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
  LWQ_ASSIGN_OR_RETURN(auto source, MakeSource(name, job.job().spec(), &job.engine()));
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

void Scheduler::PlanJob(const std::string& name, int attempt) {
  auto plan = [&]() -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const v1::JobRecord job, GetJob(name));
    if (job.plan_state() != v1::JobRecord::RUNNING) return absl::OkStatus();
    return ContinuePlan(job);
  };
  absl::Status status = plan();
  if (status.ok()) return;
  spdlog::warn("planning {} failed: {}", name, LogSafe(status.ToString()));
  if (!PassesByItself(status)) status = FailFor(name, status);
  if (!status.ok()) RetryLater(attempt, [=, this] { PlanJob(name, attempt + 1); });
}

absl::StatusOr<std::set<std::string>> Scheduler::LostTasks(const v1::JobRecord& job) const {
  std::vector<std::pair<std::string, v1::TaskOutput>> done;
  {
    MutexLock lock(&mu_);
    for (const std::string& key : job.tasks()) {
      auto task = state_.tasks().find(key);
      if (task == state_.tasks().end() || task->second.state() != v1::TaskRecord::DONE) continue;
      done.emplace_back(key, task->second.output());
    }
  }
  std::set<std::string> lost;
  for (const auto& [key, output] : done) {
    LWQ_ASSIGN_OR_RETURN(const bool whole, HasBlobs(output));
    if (!whole) lost.insert(key);
  }
  return lost;
}

void Scheduler::Rebuild(const std::string& name, int attempt) {
  auto rebuild = [&]() -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const v1::JobRecord job, GetJob(name));
    if (!job.rebuilding() || IsTerminal(job.job().state())) return absl::OkStatus();
    LWQ_ASSIGN_OR_RETURN(auto source, MakeSource(name, job.job().spec(), &job.engine(), true));
    const JobGraph graph = BuildFirst(*source);
    LWQ_ASSIGN_OR_RETURN(const CachedResults cached, LookUp(graph));
    LWQ_ASSIGN_OR_RETURN(const std::set<std::string> lost, LostTasks(job));
    return Run([&](Draft& draft) { return RebuildJob(draft, name, graph, cached, lost); });
  };
  absl::Status status = rebuild();
  if (status.ok()) return;
  spdlog::warn("building {} again failed: {}", name, LogSafe(status.ToString()));
  if (!PassesByItself(status)) status = FailFor(name, status);
  if (!status.ok()) RetryLater(attempt, [=, this] { Rebuild(name, attempt + 1); });
}

}  // namespace lwq
