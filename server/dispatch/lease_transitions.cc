// Workers: register, lease, heartbeat, complete, fail, release; leases that expire.
#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "server/dispatch/failure_policy.h"
#include "server/dispatch/progress.h"
#include "server/dispatch/task_key.h"
#include "server/dispatch/transitions.h"

namespace lwq {
namespace {

constexpr int kMaxLeasesACall = 8;
constexpr int kMaxRebuilds = 3;

absl::Status CheckWorker(const v1::WorkerRecord* worker, const std::string& worker_id,
                         const std::string& incarnation) {
  if (worker == nullptr) {
    return PreconditionFailure(
        "WORKER_UNKNOWN", absl::StrCat("worker ", worker_id, " is not registered: register first"));
  }
  if (worker->registration().incarnation() != incarnation) {
    return PreconditionFailure(
        "INCARNATION_SUPERSEDED",
        absl::StrCat("a newer process has registered as worker ", worker_id));
  }
  return absl::OkStatus();
}

absl::Status LeaseLost(const std::string& task) {
  return PreconditionFailure("LEASE_LOST",
                             absl::StrCat("task ", task,
                                          " is not leased under this epoch and "
                                          "incarnation; whatever was computed is not counted"));
}

// The fence: the caller holds the lease that it speaks of.
absl::Status CheckLease(const v1::TaskRecord* task, const std::string& key, int64_t epoch,
                        const std::string& worker, const std::string& incarnation) {
  if (task == nullptr || task->state() != v1::TaskRecord::LEASED || task->epoch() != epoch ||
      task->worker() != worker || task->incarnation() != incarnation) {
    return LeaseLost(key);
  }
  return absl::OkStatus();
}

bool HasCapability(const google::protobuf::RepeatedPtrField<v1::Capability>& list,
                   const std::string& name) {
  return std::any_of(list.begin(), list.end(),
                     [&](const v1::Capability& c) { return c.name() == name; });
}

bool CanRun(const v1::RegisterWorkerRequest& worker, const v1::TaskSpec& spec) {
  if (spec.has_quantize()) {
    return HasCapability(worker.quantizers(), spec.quantize().recipe().method());
  }
  if (spec.has_score()) return HasCapability(worker.scorers(), spec.score().scorer());
  return true;
}

// Order of handing out: priority, then the oldest job, then the latest phase (finish rather than
// begin), then layer and key. Smaller comes first.
using Rank = std::tuple<int, int64_t, int, int, std::string>;

Rank RankOf(const DispatchState& state, const v1::TaskRecord& task) {
  int priority = -v1::Job::NORMAL;
  int64_t age = 0;  // a model's verification comes before all jobs of its priority
  bool first = task.models_size() == 0;
  for (const std::string& name : task.jobs()) {
    auto job = state.jobs().find(name);
    if (job == state.jobs().end()) continue;
    const int p = job->second.job().priority() == v1::Job::PRIORITY_UNSPECIFIED
                      ? v1::Job::NORMAL
                      : job->second.job().priority();
    if (first || std::make_pair(-p, job->second.submit_us()) < std::make_pair(priority, age)) {
      priority = -p;
      age = job->second.submit_us();
    }
    first = false;
  }
  const int layer = task.layer() < 0 ? 1 << 20 : task.layer();
  return {priority, age, -static_cast<int>(task.phase()), layer, task.key()};
}

v1::Lease MakeLease(const Draft& draft, const v1::TaskRecord& task, int64_t ttl_us) {
  v1::Lease lease;
  lease.set_task(task.key());
  lease.set_epoch(task.epoch());
  lease.set_attempt(task.attempt() + 1);
  lease.mutable_ttl()->set_seconds(ttl_us / 1'000'000);
  lease.mutable_ttl()->set_nanos(static_cast<int32_t>(ttl_us % 1'000'000) * 1000);
  *lease.mutable_spec() = task.spec();
  if (lease.spec().has_quantize()) {
    *lease.mutable_spec()->mutable_quantize()->mutable_units() = task.missing_units();
  }
  v1::ModelInput* input = MutableModelOf(*lease.mutable_spec());
  const v1::Model* model = draft.FindModel(task.model());
  if (input != nullptr && model != nullptr) {
    input->set_directory(model->source().directory());
    *input->mutable_manifest() = model->manifest();
  }
  for (const v1::TaskDependency& dependency : task.dependencies()) {
    if (dependency.order_only()) continue;
    const v1::TaskRecord* on = draft.FindTask(dependency.key());
    v1::TaskInput& in = *lease.add_inputs();
    in.set_role(dependency.role());
    in.set_layer(dependency.layer());
    if (on != nullptr) *in.mutable_output() = on->output();
  }
  return lease;
}

// A worker is gone with the task: back to the queue, or given up when it takes down every worker.
void LoseLease(Draft& draft, const std::string& key, absl::string_view why) {
  v1::TaskRecord& task = *draft.EditTask(key);
  const std::string worker = task.worker();
  task.set_lost_count(task.lost_count() + 1);
  auto& lost = *task.mutable_lost_workers();
  if (std::find(lost.begin(), lost.end(), worker) == lost.end()) task.add_lost_workers(worker);
  if (IsPoison(task) && IsWanted(draft, task)) {
    v1::Failure failure;
    failure.set_reason("CRASH_LOOP");
    failure.set_message(absl::StrCat(task.kind(), " of layer ", task.layer(), " was lost ",
                                     task.lost_count(), " times on ", task.lost_workers_size(),
                                     " workers (last: ", why, "); it is not handed out again"));
    failure.set_blame(v1::Failure::SERVICE);
    failure.set_code(static_cast<int>(absl::StatusCode::kAborted));
    failure.set_task(key);
    failure.set_worker(worker);
    GiveUpTask(draft, key, failure);
    return;
  }
  RequeueTask(draft, key, draft.now_us(), why);
}

}  // namespace

absl::Status RegisterWorker(Draft& draft, const v1::RegisterWorkerRequest& request) {
  const v1::WorkerRecord* old = draft.FindWorker(request.worker_id());
  const bool same = old != nullptr && old->registration().incarnation() == request.incarnation();
  v1::WorkerRecord worker;
  if (old != nullptr) worker = *old;
  *worker.mutable_registration() = request;
  worker.set_registered_us(draft.now_us());
  draft.PutWorker(std::move(worker));
  draft.effects.tasks_ready = true;
  if (same) return absl::OkStatus();
  std::vector<std::string> lost;
  for (const auto& [key, task] : draft.state().tasks()) {
    if (task.state() == v1::TaskRecord::LEASED && task.worker() == request.worker_id()) {
      lost.push_back(key);
    }
  }
  for (const std::string& key : lost) {
    if (const v1::TaskRecord* task = draft.FindTask(key);
        task != nullptr && task->state() == v1::TaskRecord::LEASED) {
      LoseLease(draft, key, absl::StrCat("worker ", request.worker_id(), " started anew"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::Lease>> LeaseTasks(Draft& draft,
                                                  const v1::LeaseTasksRequest& request) {
  const v1::WorkerRecord* worker = draft.FindWorker(request.worker_id());
  LWQ_RETURN_IF_ERROR(CheckWorker(worker, request.worker_id(), request.incarnation()));
  std::vector<v1::Lease> leases;
  if (worker->cordoned()) return leases;
  std::vector<std::pair<Rank, std::string>> ready;
  for (const auto& [key, task] : draft.state().tasks()) {
    if (task.state() != v1::TaskRecord::READY || task.ready_us() > draft.now_us() ||
        !IsWanted(draft, task) || !CanRun(worker->registration(), task.spec())) {
      continue;
    }
    ready.emplace_back(RankOf(draft.state(), task), key);
  }
  const size_t count =
      std::min<size_t>(ready.size(), std::clamp(request.max_tasks(), 1, kMaxLeasesACall));
  std::partial_sort(ready.begin(), ready.begin() + count, ready.end());
  for (size_t i = 0; i < count; ++i) {
    v1::TaskRecord& task = *draft.EditTask(ready[i].second);
    task.set_state(v1::TaskRecord::LEASED);
    task.set_epoch(draft.NextEpoch());
    task.set_worker(request.worker_id());
    task.set_incarnation(request.incarnation());
    task.set_leased_us(draft.now_us());
    leases.push_back(MakeLease(draft, task, draft.state().options().lease_ttl_us));
    for (const std::string& name : task.jobs()) {
      v1::JobRecord* job = draft.EditJob(name);
      if (job == nullptr || job->job().state() == v1::Job::CANCELLING) continue;
      if (job->job().state() == v1::Job::QUEUED) StartJob(draft, *job);
      PushTaskEvent(draft, *job, task, v1::TaskEvent::LEASED, "");
      UpdateProgress(draft, *job);
    }
  }
  return leases;
}

absl::StatusOr<v1::HeartbeatResponse> Heartbeat(DispatchState& state, int64_t now_us,
                                                const v1::HeartbeatRequest& request) {
  auto worker = state.workers().find(request.worker_id());
  LWQ_RETURN_IF_ERROR(CheckWorker(worker == state.workers().end() ? nullptr : &worker->second,
                                  request.worker_id(), request.incarnation()));
  state.SawWorker(request.worker_id(), now_us);
  const Draft view(state, now_us);
  v1::HeartbeatResponse response;
  for (const v1::LeaseBeat& beat : request.beats()) {
    v1::LeaseDirective& directive = *response.add_directives();
    directive.set_task(beat.task());
    directive.set_epoch(beat.epoch());
    const v1::TaskRecord* task = view.FindTask(beat.task());
    LeaseStatus* lease = state.MutableLease(beat.task());
    if (lease == nullptr ||
        !CheckLease(task, beat.task(), beat.epoch(), request.worker_id(), request.incarnation())
             .ok()) {
      directive.set_directive(v1::LeaseDirective::LEASE_LOST);
      continue;
    }
    lease->expires_us = now_us + state.options().lease_ttl_us;
    if (beat.progress() > lease->progress) lease->progress_us = now_us;
    lease->progress = std::max(lease->progress, beat.progress());
    lease->fraction = beat.fraction();
    lease->current = beat.current();
    directive.set_directive(IsWanted(view, *task) ? v1::LeaseDirective::CONTINUE
                                                  : v1::LeaseDirective::CANCEL);
  }
  return response;
}

absl::Status CompleteTask(Draft& draft, const v1::CompleteTaskRequest& request) {
  const v1::TaskRecord* task = draft.FindTask(request.task());
  if (task != nullptr && task->state() == v1::TaskRecord::DONE &&
      task->epoch() == request.epoch() && !request.completion_id().empty() &&
      task->completion_id() == request.completion_id()) {
    return absl::OkStatus();
  }
  LWQ_RETURN_IF_ERROR(CheckLease(task, request.task(), request.epoch(), request.worker_id(),
                                 request.incarnation()));
  v1::TaskRecord& done = *draft.EditTask(request.task());
  done.set_completion_id(request.completion_id());
  if (v1::WorkerRecord* worker = draft.EditWorker(request.worker_id())) {
    worker->set_tasks_done(worker->tasks_done() + 1);
  }
  FinishTask(draft, request.task(), request.output());
  return absl::OkStatus();
}

absl::Status FailTask(Draft& draft, const v1::FailTaskRequest& request) {
  const v1::TaskRecord* held = draft.FindTask(request.task());
  LWQ_RETURN_IF_ERROR(CheckLease(held, request.task(), request.epoch(), request.worker_id(),
                                 request.incarnation()));
  v1::TaskRecord& task = *draft.EditTask(request.task());
  v1::Failure failure = request.failure();
  failure.set_task(request.task());
  failure.set_worker(request.worker_id());
  if (failure.reason().empty()) failure.set_reason("INTERNAL");
  if (failure.blame() == v1::Failure::BLAME_UNSPECIFIED) {
    failure.set_blame(BlameOf(failure.reason(), failure.code()));
  }
  const RetryDecision decision = DecideRetry(task, failure);
  *task.mutable_failure() = failure;
  if (decision.lost_inputs && task.models_size() == 0) {
    const std::vector<std::string> jobs(task.jobs().begin(), task.jobs().end());
    RequeueTask(draft, request.task(), draft.now_us(), failure.message());
    for (const std::string& name : jobs) {
      v1::JobRecord* job = draft.EditJob(name);
      if (job == nullptr || IsTerminal(job->job().state())) continue;
      job->set_rebuilds(job->rebuilds() + 1);
      if (job->rebuilds() > kMaxRebuilds) {
        FailJob(draft, name, failure);
      } else {
        draft.effects.rebuild_jobs.insert(name);
      }
    }
    return absl::OkStatus();
  }
  if (!decision.retry || !IsWanted(draft, task)) {
    GiveUpTask(draft, request.task(), failure);
    return absl::OkStatus();
  }
  if (decision.counts) {
    task.set_attempt(task.attempt() + 1);
  } else {
    task.set_transient_count(task.transient_count() + 1);
  }
  RequeueTask(draft, request.task(), draft.now_us() + absl::ToInt64Microseconds(decision.delay),
              failure.message());
  return absl::OkStatus();
}

absl::Status ReleaseTasks(Draft& draft, const v1::ReleaseTasksRequest& request) {
  const v1::WorkerRecord* worker = draft.FindWorker(request.worker_id());
  LWQ_RETURN_IF_ERROR(CheckWorker(worker, request.worker_id(), request.incarnation()));
  for (const std::string& key : request.tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || task->state() != v1::TaskRecord::LEASED ||
        task->worker() != request.worker_id() || task->incarnation() != request.incarnation()) {
      continue;
    }
    RequeueTask(draft, key, draft.now_us(), "given back by its worker");
  }
  return absl::OkStatus();
}

void ReapLeases(Draft& draft) {
  const DispatchOptions& options = draft.state().options();
  for (const auto& [key, lease] : draft.state().leases()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || task->state() != v1::TaskRecord::LEASED) continue;
    if (lease.expires_us <= draft.now_us()) {
      ++draft.effects.leases_expired;
      LoseLease(
          draft, key,
          absl::StrCat("nothing was heard of worker ", task->worker(), " for the time of a lease"));
    } else if (options.stall_us > 0 && lease.progress_us + options.stall_us <= draft.now_us()) {
      v1::FailTaskRequest stalled;
      stalled.set_worker_id(task->worker());
      stalled.set_incarnation(task->incarnation());
      stalled.set_task(key);
      stalled.set_epoch(task->epoch());
      stalled.mutable_failure()->set_reason("TASK_STALLED");
      stalled.mutable_failure()->set_code(static_cast<int>(absl::StatusCode::kDeadlineExceeded));
      stalled.mutable_failure()->set_message(
          absl::StrCat(task->kind(), " made no progress for ", options.stall_us / 1'000'000, " s"));
      stalled.mutable_failure()->set_blame(v1::Failure::SERVICE);
      // Holds the lease by construction, so this cannot be refused.
      FailTask(draft, stalled).IgnoreError();
    }
  }
}

}  // namespace lwq
