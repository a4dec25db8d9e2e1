// The scheduler's graphs: what they are built from, what the cache knows of them, and building them
// on after a plan or a loss.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "records/canonical.h"
#include "server/dispatch/engine_choice.h"
#include "server/dispatch/job_options.h"
#include "server/dispatch/task_match.h"
#include "server/service/record_writes.h"
#include "server/service/scheduler.h"
#include "worker/engine/plan/allocator.h"

namespace lwq {
namespace {

// That a result was used is written down when it was last so long ago.
constexpr int64_t kNoteUseUs = int64_t{24} * 3600 * 1'000'000;

BlobId IdOf(const v1::BlobRef& blob) { return {blob.sha256(), blob.size_bytes()}; }

// Whether what failed may succeed later without anybody changing what was asked.
bool PassesByItself(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return IsRetryable(status) || reason == reasons::kStoreFull.name ||
         reason == reasons::kStorageFull.name;
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

v1::EngineClass Scheduler::EngineFor(const GraphInput& input) const {
  std::set<TaskNeed> needs;
  if (input.spec.has_quantize()) {
    TaskNeed need{.kind = "quantize",
                  .method = input.spec.quantize().method(),
                  .family = input.model->manifest().family(),
                  .memory_bytes = input.memory.total_bytes};
    needs.insert(need);
    need.method.clear();
    if (input.scores_needed) {
      need.kind = "score";
      need.scorer = input.spec.quantize().scorer();
      needs.insert(need);
    }
  } else {
    needs.insert({.kind = "evaluate"});
  }
  MutexLock lock(&mu_);
  return ChooseEngine(state_, Now().steady_us, needs).engine;
}

absl::StatusOr<std::unique_ptr<GraphSource>> Scheduler::MakeSource(
    const std::string& salt, const v1::JobSpec& spec, const v1::EngineClass* engine) const {
  auto source = std::make_unique<GraphSource>();
  GraphInput& input = source->input;
  input.salt = salt;
  input.spec = spec;
  for (const std::string& name : DatasetsOf(spec)) {
    LWQ_ASSIGN_OR_RETURN(input.datasets[name], GetDataset(name));
  }
  if (!spec.has_quantize()) {
    input.engine = engine != nullptr ? *engine : EngineFor(input);
    return source;
  }
  LWQ_ASSIGN_OR_RETURN(source->model, GetModel(spec.quantize().model()));
  if (source->model.state() == v1::Model::REJECTED) {
    return Failure(
        reasons::kModelRejected,
        absl::StrCat(source->model.name(), " was rejected: ", source->model.failure().message()));
  }
  if (source->model.state() != v1::Model::ACTIVE) {
    return Failure(reasons::kModelNotReady,
                   absl::StrCat(source->model.name(), " is still being verified"));
  }
  input.model = &source->model;
  std::vector<v1::Capability> quantizers, scorers;
  std::vector<std::string> families;
  Capabilities(quantizers, scorers, families);
  const v1::Capability* method = FindCapability(quantizers, spec.quantize().method());
  if (method == nullptr) {
    return Failure(reasons::kMethodUnknown,
                   absl::StrCat("there is no method \"", spec.quantize().method(),
                                "\"; the methods are ", Names(quantizers)));
  }
  const v1::Capability* scorer = FindCapability(scorers, spec.quantize().scorer());
  if (scorer == nullptr) {
    return Failure(reasons::kScorerUnknown,
                   absl::StrCat("there is no scorer \"", spec.quantize().scorer(),
                                "\"; the scorers are ", Names(scorers)));
  }
  input.method = *method;
  input.scorer = *scorer;
  LWQ_RETURN_IF_ERROR(
      FillOptions(input.method, input.scorer, /*strict=*/false, *input.spec.mutable_quantize()));
  LWQ_ASSIGN_OR_RETURN(input.products, ProductsOf(spec.quantize(), source->model.manifest()));
  LWQ_ASSIGN_OR_RETURN(const AllocatorDef* allocator, FindAllocator(spec.quantize().allocator()));
  input.scores_needed = allocator->needs_cost || allocator->needs_layer_score;
  input.max_trials = allocator->max_trials;
  LWQ_ASSIGN_OR_RETURN(
      const Feasibility feasible,
      CheckFeasibility(input.spec.quantize(), source->model.manifest(), MemoryOf(input)));
  input.memory = feasible.memory;
  input.engine = engine != nullptr ? *engine : EngineFor(input);
  return source;
}

JobGraph Scheduler::BuildFirst(const GraphSource& source) const {
  return source.input.spec.has_quantize() ? BuildFirstStage(source.input)
                                          : BuildEvaluationGraph(source.input);
}

absl::StatusOr<std::vector<bool>> Scheduler::AreWhole(
    const std::vector<const v1::TaskOutput*>& outputs) const {
  std::vector<BlobId> ids;
  for (const v1::TaskOutput* output : outputs) {
    for (const v1::NamedBlob& blob : output->blobs()) ids.push_back(IdOf(blob.blob()));
  }
  LWQ_ASSIGN_OR_RETURN(const std::vector<BlobId> missing, blobs_->FindMissing(ids));
  const std::set<BlobId> gone(missing.begin(), missing.end());
  std::vector<bool> whole;
  for (const v1::TaskOutput* output : outputs) {
    whole.push_back(std::none_of(output->blobs().begin(), output->blobs().end(),
                                 [&](const auto& b) { return gone.count(IdOf(b.blob())) > 0; }));
  }
  return whole;
}

absl::StatusOr<CachedResults> Scheduler::LookUp(const JobGraph& graph,
                                                const std::optional<std::set<std::string>>& seen) {
  std::map<std::string, std::string> kinds;  // by key
  for (const TaskNode& node : graph.tasks) {
    if (node.product_keys().empty()) kinds[node.key()] = node.kind();
    for (const auto& [blob, key] : node.product_keys()) kinds[key] = node.kind();
  }
  std::vector<std::string> keys;
  for (const auto& [key, kind] : kinds) keys.push_back(key);
  LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows, store_->GetMany(Table::kCache, keys));
  std::vector<v1::CacheRecord> entries;
  std::vector<const v1::TaskOutput*> outputs;
  entries.reserve(rows.size());
  for (const Record& row : rows) {
    LWQ_ASSIGN_OR_RETURN(entries.emplace_back(), ParseRecord<v1::CacheRecord>(Table::kCache, row));
    outputs.push_back(&entries.back().output());
  }
  LWQ_ASSIGN_OR_RETURN(const std::vector<bool> whole, AreWhole(outputs));
  CachedResults cached;
  std::vector<Write> drops;
  std::vector<Write> uses;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Record& row = rows[i];
    if (seen.has_value() && seen->count(row.key) == 0) {
      metrics_->CacheLookup(kinds[row.key], whole[i] ? "hit" : "incomplete");
    }
    kinds.erase(row.key);
    if (whole[i]) {
      cached[row.key] = std::move(*entries[i].mutable_output());
      if (row.order + kNoteUseUs > NowUs()) continue;
      Write& use = uses.emplace_back(
          Write{.table = Table::kCache, .record = row, .expected_version = row.version});
      use.record.order = NowUs();
    } else {
      Write& drop = drops.emplace_back();
      drop.table = Table::kCache;
      drop.record.key = row.key;
      drop.remove = true;
      drop.expected_version = row.version;
    }
  }
  for (const auto& [key, kind] : kinds) {
    if (seen.has_value() && seen->count(key) == 0) metrics_->CacheLookup(kind, "miss");
  }
  // A row that was made anew meanwhile is whole and stays; the others go the next time.
  const absl::Status dropped = drops.empty() ? absl::OkStatus() : store_->Commit(drops);
  if (ReasonOf(dropped) != reasons::kVersionConflict.name) LWQ_RETURN_IF_ERROR(dropped);
  // Only a note for the collector: one that cannot be made costs nothing today.
  if (!uses.empty()) store_->Commit(uses).IgnoreError();
  return cached;
}

// Keys of what a job's tasks make, made or not.
std::set<std::string> Scheduler::KeysOf(const v1::JobRecord& job) const {
  std::set<std::string> keys(job.tasks().begin(), job.tasks().end());
  MutexLock lock(&mu_);
  for (const std::string& key : job.tasks()) {
    auto task = state_.tasks().find(key);
    if (task == state_.tasks().end()) continue;
    for (const auto& [blob, product] : task->second.product_keys()) keys.insert(product);
  }
  return keys;
}

absl::Status Scheduler::ContinuePlan(const v1::JobRecord& job) {
  LWQ_ASSIGN_OR_RETURN(auto source, MakeSource(SaltOf(job), job.job().spec(), &job.engine()));
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
  const std::set<std::string> seen = KeysOf(job);
  for (size_t i = 0; i < step.trials.size(); ++i) {
    step.trials[i].set_task(graph.plan_tasks[i]);
    trials.push_back(std::move(step.trials[i]));
  }
  LWQ_ASSIGN_OR_RETURN(const CachedResults cached, LookUp(graph, seen));
  Failpoint("plan.before_commit");
  return Run([&](Draft& draft) {
    return decided ? FinishPlan(draft, job, step.plan, trials, graph, cached)
                   : StartTrials(draft, job, trials, graph, cached);
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
  std::set<std::string> doubted;
  {
    MutexLock lock(&mu_);
    for (const std::string& key : job.tasks()) {
      auto task = state_.tasks().find(key);
      if (task == state_.tasks().end()) continue;
      if (task->second.state() == v1::TaskRecord::DONE) {
        done.emplace_back(key, task->second.output());
      }
      if (task->second.doubted_by().empty()) continue;
      for (const v1::TaskDependency& d : task->second.dependencies()) {
        if (!d.order_only()) doubted.insert(d.key());
      }
    }
  }
  std::vector<const v1::TaskOutput*> outputs;
  for (const auto& [key, output] : done) {
    outputs.push_back(&output);
    if (doubted.count(key) > 0) LWQ_RETURN_IF_ERROR(ReadThrough(output));
  }
  LWQ_ASSIGN_OR_RETURN(const std::vector<bool> whole, AreWhole(outputs));
  std::set<std::string> lost;
  for (size_t i = 0; i < done.size(); ++i) {
    if (!whole[i]) lost.insert(done[i].first);
  }
  return lost;
}

// A worker whose download was cut has read the parts by calls of their own, none of which saw the
// whole: the digest is checked here.
absl::Status Scheduler::ReadThrough(const v1::TaskOutput& output) const {
  constexpr int64_t kChunk = 1 << 20;
  for (const v1::NamedBlob& blob : output.blobs()) {
    auto reader = blobs_->OpenRead(IdOf(blob.blob()));
    absl::Status status = reader.status();
    for (int64_t at = 0; status.ok() && at < blob.blob().size_bytes();) {
      const absl::StatusOr<std::string> bytes = (*reader)->Read(at, kChunk);
      status = bytes.status();
      if (status.ok() && bytes->empty()) break;
      if (status.ok()) at += static_cast<int64_t>(bytes->size());
    }
    // What is not there, or was wrong and is quarantined, is found to be missing afterwards.
    if (!status.ok() && !absl::IsNotFound(status) && !absl::IsDataLoss(status)) return status;
  }
  return absl::OkStatus();
}

void Scheduler::Rebuild(const std::string& name, int attempt) {
  auto rebuild = [&]() -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const v1::JobRecord job, GetJob(name));
    if (IsTerminal(job.job().state())) return absl::OkStatus();
    if (!job.rebuilding() && !job.inputs_doubted()) return absl::OkStatus();
    LWQ_ASSIGN_OR_RETURN(const std::set<std::string> lost, LostTasks(job));
    if (lost.empty() && !job.rebuilding()) {
      return Run([&](Draft& draft) {
        DismissDoubts(draft, name);
        return absl::OkStatus();
      });
    }
    LWQ_ASSIGN_OR_RETURN(auto source, MakeSource(SaltOf(job), job.job().spec(), &job.engine()));
    const JobGraph graph = BuildFirst(*source);
    LWQ_ASSIGN_OR_RETURN(const CachedResults cached, LookUp(graph));
    return Run([&](Draft& draft) { return RebuildJob(draft, name, graph, cached, lost); });
  };
  absl::Status status = rebuild();
  if (status.ok()) return;
  spdlog::warn("building {} again failed: {}", name, LogSafe(status.ToString()));
  if (!PassesByItself(status)) status = FailFor(name, status);
  if (!status.ok()) RetryLater(attempt, [=, this] { Rebuild(name, attempt + 1); });
}

}  // namespace lwq
