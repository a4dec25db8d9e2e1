// Jobs: submit, plan, cancel, retry, finish.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "records/blob_names.h"
#include "records/canonical.h"
#include "server/dispatch/graph_install.h"
#include "server/dispatch/progress.h"
#include "server/dispatch/transitions.h"
#include "server/dispatch/work_estimate.h"

namespace lwq {
namespace {

constexpr int kMaxRebuilds = 3;  // after losses of blobs

void SetState(Draft& draft, v1::JobRecord& record, v1::Job::State to) {
  v1::Job& job = *record.mutable_job();
  const v1::Job::State from = job.state();
  if (from == to) return;
  job.set_state(to);
  if (to == v1::Job::RUNNING && !job.has_start_time()) {
    *job.mutable_start_time() = ToTimestamp(draft.now_us());
  }
  if (IsTerminal(to)) {
    *job.mutable_end_time() = ToTimestamp(draft.now_us());
    job.clear_queue_detail();
    job.mutable_progress()->clear_current();
    job.mutable_progress()->set_tasks_running(0);
  }
  v1::JobEvent event;
  event.mutable_state()->set_from(from);
  event.mutable_state()->set_to(to);
  *event.mutable_state()->mutable_job() = WithoutItems(job);
  draft.PushEvent(record, std::move(event));
}

// Takes the job's name off its tasks and forgets those that nobody else wants.
void DropTasks(Draft& draft, v1::JobRecord& job) {
  const std::vector<std::string> keys(job.tasks().begin(), job.tasks().end());
  for (const std::string& key : keys) {
    v1::TaskRecord* task = draft.EditTask(key);
    if (task == nullptr) continue;
    RemoveFrom(*task->mutable_jobs(), job.job().name());
    RemoveFrom(*task->mutable_untold(), job.job().name());
    ForgetUnwanted(draft, key);
  }
  job.clear_tasks();
}

// Keeps how the tasks stood, moves the job to a terminal state, and lets go of the tasks.
void EndJob(Draft& draft, v1::JobRecord& job, v1::Job::State state) {
  HearOfTasks(draft, job);
  UpdateProgress(draft, job);
  if (state == v1::Job::SUCCEEDED) {
    job.mutable_job()->mutable_progress()->set_fraction(1.0);
    job.mutable_job()->set_phase(v1::COMMIT);
  }
  job.clear_finished();
  const std::set<std::string> cached(job.cached().begin(), job.cached().end());
  for (const std::string& key : job.tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr) continue;
    v1::TaskStatus status = StatusOf(*task, cached.count(key) > 0);
    if (status.state() != "DONE" && status.state() != "FAILED") status.set_state("CANCELLED");
    *job.add_finished() = std::move(status);
  }
  SetState(draft, job, state);
  DropTasks(draft, job);
  const std::string tenant = TenantOf(job.job());
  // The one that now has room may be held by this very event, and counts only after it.
  const bool may_hold = OptionsOf(draft.state().options().tenants, tenant).max_running_jobs > 0;
  if (may_hold || draft.state().CountsOf(tenant).held > 0) {
    draft.effects.admit_tenants.insert(tenant);
  }
}

// Whether any job is being cancelled: rarely so, and a task may have thousands of jobs to ask.
bool AnyIsCancelled(const Draft& draft) {
  const auto& counts = draft.state().counts().jobs;
  const auto count = counts.find(v1::Job::CANCELLING);
  if (count != counts.end() && count->second > 0) return true;
  return std::any_of(draft.changes.jobs.begin(), draft.changes.jobs.end(), [](const auto& edit) {
    return edit.second && edit.second->job().state() == v1::Job::CANCELLING;
  });
}

// Ends a job that is being cancelled, unless a task runs for it alone.
void EndIfCancelled(Draft& draft, const std::string& name) {
  const v1::JobRecord* job = draft.FindJob(name);
  if (job == nullptr || job->job().state() != v1::Job::CANCELLING) return;
  const bool running =
      std::any_of(job->tasks().begin(), job->tasks().end(), [&](const std::string& key) {
        const v1::TaskRecord* task = draft.FindTask(key);
        return task != nullptr && task->state() == v1::TaskRecord::LEASED &&
               !IsWanted(draft, *task);
      });
  if (!running) EndJob(draft, *draft.EditJob(name), v1::Job::CANCELLED);
}

void CollectLayers(const Draft& draft, v1::JobRecord& record) {
  v1::Job& job = *record.mutable_job();
  std::set<std::string> planned;
  for (const v1::UnitChoice& unit : job.plan().units()) {
    planned.insert(UnitBlobName(unit.unit(), unit.format()));
  }
  job.clear_layers();
  std::map<int, v1::LayerReport> layers;
  for (const std::string& key : record.tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || task->kind() != "quantize") continue;
    for (const v1::LinearReport& linear : task->output().quantize().report().linears()) {
      if (planned.count(UnitBlobName(linear.unit(), linear.format())) == 0) continue;
      v1::LayerReport& layer = layers[task->layer()];
      layer.set_layer(task->layer());
      *layer.add_linears() = linear;
    }
  }
  for (auto& [number, layer] : layers) *job.add_layers() = std::move(layer);
}

// The artifact row and SUCCEEDED, in the transaction that finished the last task.
void CommitJob(Draft& draft, v1::JobRecord& record) {
  v1::Job& job = *record.mutable_job();
  if (job.spec().has_quantize()) {
    v1::Artifact artifact;
    artifact.set_name(absl::StrCat("artifacts/", job.name().substr(job.name().find('/') + 1)));
    artifact.set_job(job.name());
    artifact.set_tenant(job.tenant());
    *artifact.mutable_create_time() = ToTimestamp(draft.now_us());
    for (const std::string& key : record.tasks()) {
      const v1::TaskRecord* task = draft.FindTask(key);
      if (task == nullptr || (task->kind() != "assemble" && task->kind() != "verify")) continue;
      artifact.mutable_files()->MergeFrom(task->output().blobs());
      if (task->kind() == "assemble") {
        artifact.set_weight_bytes(task->output().assemble().weight_file_bytes());
      }
    }
    int64_t total = 0;
    for (const v1::NamedBlob& file : artifact.files()) total += file.blob().size_bytes();
    artifact.set_total_bytes(total);
    job.set_artifact(artifact.name());
    draft.changes.artifacts.push_back(std::move(artifact));
    CollectLayers(draft, record);
  }
  EndJob(draft, record, v1::Job::SUCCEEDED);
}

bool AllDone(const Draft& draft, const google::protobuf::RepeatedPtrField<std::string>& keys) {
  return std::all_of(keys.begin(), keys.end(), [&](const std::string& key) {
    const v1::TaskRecord* task = draft.FindTask(key);
    return task != nullptr && task->state() == v1::TaskRecord::DONE;
  });
}

void UnblockTasks(Draft& draft, const v1::JobRecord& job) {
  for (const std::string& key : job.tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || task->state() != v1::TaskRecord::BLOCKED) continue;
    const bool free = std::all_of(
        task->dependencies().begin(), task->dependencies().end(), [&](const auto& dependency) {
          const v1::TaskRecord* on = draft.FindTask(dependency.key());
          return on == nullptr ? dependency.order_only() : on->state() == v1::TaskRecord::DONE;
        });
    if (!free) continue;
    draft.EditTask(key)->set_state(v1::TaskRecord::READY);
    ++draft.effects.tasks_ready;
  }
}

void InstallAndAdvance(Draft& draft, v1::JobRecord& job, const JobGraph& graph,
                       const CachedResults& cached) {
  InstallGraph(draft, job, graph, cached);
  // A job that was being cancelled has no more to wait for once another wants its running tasks.
  if (AnyIsCancelled(draft)) {
    const std::vector<std::string> keys(job.tasks().begin(), job.tasks().end());
    for (const std::string& key : keys) {
      if (draft.changes.joined.count(key) > 0) draft.EditTask(key);  // with this job
      if (draft.FindTask(key)->jobs_size() > 1) ForgetUnwanted(draft, key);
    }
  }
  CollectEvaluations(draft, job);
  AdvanceJob(draft, job.job().name());
}

void WaitForPlanTasks(const JobGraph& graph, v1::JobRecord& job) {
  *job.mutable_engine() = graph.engine;
  job.mutable_plan_tasks()->Assign(graph.plan_tasks.begin(), graph.plan_tasks.end());
  job.set_plan_state(graph.plan_tasks.empty() ? v1::JobRecord::NO_PLAN : v1::JobRecord::WAITING);
}

// A record at the very beginning: no tasks, no results.
v1::JobRecord FreshRecord(const Draft& draft, v1::Job job, const JobGraph& graph) {
  v1::JobRecord record;
  const std::string tenant = TenantOf(job);
  *record.mutable_job() = std::move(job);
  record.set_submit_us(draft.now_us());
  const int most = OptionsOf(draft.state().options().tenants, tenant).max_running_jobs;
  // Those that are held already come first.
  const int before = JobsAtWork(draft, tenant) + draft.state().CountsOf(tenant).held;
  record.set_held(most > 0 && before >= most);
  WaitForPlanTasks(graph, record);
  return record;
}

// The job whose plan was begun `from` this record of it; null when it was cancelled, failed,
// planned or built anew meanwhile: what comes too late changes nothing. A job that was built anew
// may be planning again, by other tasks or for another class of workers.
v1::JobRecord* EditPlanning(Draft& draft, const v1::JobRecord& from) {
  v1::JobRecord* job = draft.EditJob(from.job().name());
  const bool planning = job != nullptr && job->plan_state() == v1::JobRecord::RUNNING &&
                        job->job().state() == v1::Job::RUNNING &&
                        std::equal(job->plan_tasks().begin(), job->plan_tasks().end(),
                                   from.plan_tasks().begin(), from.plan_tasks().end()) &&
                        CanonicalBytes(job->engine()) == CanonicalBytes(from.engine());
  return planning ? job : nullptr;
}

// Of a job of which blobs are lost again and again: what a worker said last, if one did.
v1::Failure LostTooOften(const Draft& draft, const v1::JobRecord& job) {
  for (const std::string& key : job.tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task != nullptr && !task->doubted_by().empty()) return task->failure();
  }
  v1::Failure failure;
  failure.set_reason(std::string(reasons::kBlobMissing.name));
  failure.set_code(static_cast<int>(absl::StatusCode::kNotFound));
  failure.set_message("what the job had computed was lost again and again");
  failure.set_blame(v1::Failure::SERVICE);
  return failure;
}

void SetTrials(const std::vector<v1::PlanTrial>& trials, v1::JobRecord& job) {
  job.mutable_job()->mutable_trials()->Assign(trials.begin(), trials.end());
}

}  // namespace

google::protobuf::Timestamp ToTimestamp(int64_t us) {
  google::protobuf::Timestamp t;
  t.set_seconds(us / 1'000'000);
  t.set_nanos(static_cast<int32_t>(us % 1'000'000) * 1000);
  return t;
}

bool Contains(const google::protobuf::RepeatedPtrField<std::string>& list, const std::string& x) {
  return std::find(list.begin(), list.end(), x) != list.end();
}

void RemoveFrom(google::protobuf::RepeatedPtrField<std::string>& list, const std::string& x) {
  list.erase(std::remove(list.begin(), list.end(), x), list.end());
}

absl::Status ApplyUpdate(const v1::UpdateJobRequest& request, v1::Job& job) {
  google::protobuf::Map<std::string, std::string> labels;
  if (!request.replace_labels()) labels = job.labels();
  for (const auto& [key, value] : request.labels()) labels[key] = value;
  if (labels.size() > kMaxLabels) {
    return Failure(reasons::kLabelInvalid, absl::StrCat(job.name(), " would have ", labels.size(),
                                                        " labels, at most ", kMaxLabels));
  }
  *job.mutable_labels() = std::move(labels);
  if (request.priority() != v1::Job::PRIORITY_UNSPECIFIED) job.set_priority(request.priority());
  return absl::OkStatus();
}

absl::Status UpdateJob(Draft& draft, const v1::UpdateJobRequest& request) {
  v1::JobRecord* job = draft.EditJob(request.name());
  if (job == nullptr) {
    return Failure(reasons::kNotFound, absl::StrCat("no active job ", request.name()));
  }
  return ApplyUpdate(request, *job->mutable_job());
}

void CollectEvaluations(const Draft& draft, v1::JobRecord& record) {
  v1::Job& job = *record.mutable_job();
  job.clear_evaluations();
  for (const std::string& key : record.tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || task->kind() != "evaluate" || task->state() != v1::TaskRecord::DONE) {
      continue;
    }
    *job.add_evaluations() = task->output().evaluate();
  }
}

void StartJob(Draft& draft, v1::JobRecord& job) { SetState(draft, job, v1::Job::RUNNING); }

void AdvanceJob(Draft& draft, const std::string& name) {
  v1::JobRecord* job = draft.EditJob(name);
  if (job == nullptr || IsTerminal(job->job().state())) return;
  if (job->job().state() == v1::Job::CANCELLING) return;
  if (job->held()) {
    UpdateProgress(draft, *job);
    draft.effects.touched_jobs.insert(name);
    return;
  }
  UnblockTasks(draft, *job);
  if (job->plan_state() == v1::JobRecord::WAITING && AllDone(draft, job->plan_tasks())) {
    job->set_plan_state(v1::JobRecord::RUNNING);
    draft.effects.plan_jobs.insert(name);
    SetState(draft, *job, v1::Job::RUNNING);
  }
  const bool planned =
      job->plan_state() == v1::JobRecord::NO_PLAN || job->plan_state() == v1::JobRecord::PLANNED;
  UpdateProgress(draft, *job);
  draft.effects.touched_jobs.insert(name);
  if (planned && AllDone(draft, job->tasks())) {
    SetState(draft, *job, v1::Job::RUNNING);
    CommitJob(draft, *job);
  }
}

absl::Status SubmitJob(Draft& draft, SubmitEvent event) {
  const std::string name = event.job.name();
  if (draft.FindJob(name) != nullptr) {
    return Failure(reasons::kAlreadyExists, absl::StrCat(name, " exists already"));
  }
  v1::JobRecord record = FreshRecord(draft, std::move(event.job), event.graph);
  record.set_salt(event.salt);
  record.mutable_job()->set_state(v1::Job::STATE_UNSPECIFIED);
  *record.mutable_job()->mutable_create_time() = ToTimestamp(draft.now_us());
  v1::JobRecord& job = draft.PutJob(std::move(record));
  SetState(draft, job, v1::Job::QUEUED);
  InstallAndAdvance(draft, job, event.graph, event.cached);
  // Where the cache has everything, the job is done by now.
  if (v1::JobRecord* submitted = draft.EditJob(name); !IsTerminal(submitted->job().state())) {
    *submitted->mutable_job()->mutable_work() = ForecastWork(draft, *submitted, event.graph.later);
  }
  return absl::OkStatus();
}

absl::Status RetryJob(Draft& draft, v1::JobRecord old, const JobGraph& graph,
                      const CachedResults& cached) {
  const v1::Job::State state = old.job().state();
  if (state != v1::Job::FAILED && state != v1::Job::CANCELLED) {
    return Failure(reasons::kStateConflict,
                   absl::StrCat(old.job().name(), " is ", v1::Job::State_Name(state),
                                "; only FAILED and CANCELLED jobs can be retried"));
  }
  v1::Job job = std::move(*old.mutable_job());
  job.set_generation(job.generation() + 1);
  job.clear_failure();
  job.clear_plan();
  job.clear_trials();
  job.clear_evaluations();
  job.clear_layers();
  job.clear_progress();
  job.clear_start_time();
  job.clear_end_time();
  v1::JobRecord fresh = FreshRecord(draft, std::move(job), graph);
  fresh.set_salt(old.salt());
  v1::JobRecord& record = draft.PutJob(std::move(fresh));
  SetState(draft, record, v1::Job::QUEUED);
  InstallAndAdvance(draft, record, graph, cached);
  return absl::OkStatus();
}

absl::Status RebuildJob(Draft& draft, const std::string& name, const JobGraph& graph,
                        const CachedResults& cached, const std::set<std::string>& lost) {
  v1::JobRecord* job = draft.EditJob(name);
  if (job == nullptr || IsTerminal(job->job().state()) ||
      job->job().state() == v1::Job::CANCELLING) {
    return absl::OkStatus();
  }
  if (!lost.empty()) {
    job->set_rebuilds(job->rebuilds() + 1);
    if (job->rebuilds() > kMaxRebuilds) {
      FailJob(draft, name, LostTooOften(draft, *job));
      return absl::OkStatus();
    }
  }
  for (const std::string& key : lost) RunAgain(draft, key, name, cached);
  for (const std::string& key : job->tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task != nullptr && !task->doubted_by().empty()) draft.EditTask(key)->clear_doubted_by();
  }
  job->set_rebuilding(false);
  job->set_inputs_doubted(false);
  DropTasks(draft, *job);
  job->clear_cached();
  job->mutable_job()->clear_plan();
  job->mutable_job()->clear_trials();
  WaitForPlanTasks(graph, *job);
  InstallAndAdvance(draft, *job, graph, cached);
  return absl::OkStatus();
}

absl::Status CancelJob(Draft& draft, const std::string& name) {
  v1::JobRecord* job = draft.EditJob(name);
  if (job == nullptr) {
    return Failure(reasons::kNotFound, absl::StrCat("no active job ", name));
  }
  if (job->job().state() == v1::Job::CANCELLING) return absl::OkStatus();
  bool running = false;
  for (const std::string& key : job->tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || task->state() != v1::TaskRecord::LEASED) continue;
    running = running || task->jobs_size() + task->models_size() == 1;
  }
  if (!running) {
    EndJob(draft, *job, v1::Job::CANCELLED);
    return absl::OkStatus();
  }
  SetState(draft, *job, v1::Job::CANCELLING);
  UpdateProgress(draft, *job);
  return absl::OkStatus();
}

absl::Status StartTrials(Draft& draft, const v1::JobRecord& from,
                         const std::vector<v1::PlanTrial>& trials, const JobGraph& graph,
                         const CachedResults& cached) {
  v1::JobRecord* job = EditPlanning(draft, from);
  if (job == nullptr) return absl::OkStatus();
  SetTrials(trials, *job);
  WaitForPlanTasks(graph, *job);
  InstallAndAdvance(draft, *job, graph, cached);
  return absl::OkStatus();
}

absl::Status FinishPlan(Draft& draft, const v1::JobRecord& from, const v1::PlanSummary& plan,
                        const std::vector<v1::PlanTrial>& trials, const JobGraph& graph,
                        const CachedResults& cached) {
  const std::string& name = from.job().name();
  v1::JobRecord* job = EditPlanning(draft, from);
  if (job == nullptr) return absl::OkStatus();
  SetTrials(trials, *job);
  *job->mutable_job()->mutable_plan() = plan;
  job->set_plan_state(v1::JobRecord::PLANNED);
  v1::JobEvent event;
  event.mutable_task()->set_task(absl::StrCat("plan-", name.substr(name.find('/') + 1)));
  event.mutable_task()->set_kind("plan");
  event.mutable_task()->set_layer(kNoLayer);
  event.mutable_task()->set_state(v1::TaskEvent::DONE);
  event.mutable_task()->set_detail(plan.explanation());
  draft.PushEvent(*job, std::move(event));
  InstallAndAdvance(draft, *job, graph, cached);
  return absl::OkStatus();
}

void FailJob(Draft& draft, const std::string& name, const v1::Failure& failure) {
  v1::JobRecord* job = draft.EditJob(name);
  if (job == nullptr || IsTerminal(job->job().state())) return;
  if (job->job().state() == v1::Job::CANCELLING) return;
  SetState(draft, *job, v1::Job::RUNNING);
  *job->mutable_job()->mutable_failure() = failure;
  EndJob(draft, *job, v1::Job::FAILED);
}

bool IsWanted(const Draft& draft, const v1::TaskRecord& task) {
  if (task.models_size() > 0) return true;
  return std::any_of(task.jobs().begin(), task.jobs().end(), [&](const std::string& name) {
    const v1::JobRecord* job = draft.FindJob(name);
    return job != nullptr && !IsTerminal(job->job().state()) &&
           job->job().state() != v1::Job::CANCELLING;
  });
}

void ForgetUnwanted(Draft& draft, const std::string& key) {
  const v1::TaskRecord* task = draft.FindTask(key);
  if (task == nullptr) return;
  if (AnyIsCancelled(draft)) {
    const std::vector<std::string> jobs(task->jobs().begin(), task->jobs().end());
    for (const std::string& name : jobs) EndIfCancelled(draft, name);
    task = draft.FindTask(key);  // the last of those jobs may have taken it along
  }
  if (task != nullptr && task->state() != v1::TaskRecord::LEASED && task->jobs().empty() &&
      task->models().empty()) {
    draft.DeleteTask(key);
  }
}

}  // namespace lwq
