// Workers: register, lease, heartbeat, complete, release. What fails: failure_transitions.cc.
#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "server/dispatch/evaluation_work.h"
#include "server/dispatch/failure_policy.h"
#include "server/dispatch/make_lease.h"
#include "server/dispatch/output_check.h"
#include "server/dispatch/pick_tasks.h"
#include "server/dispatch/progress.h"
#include "server/dispatch/task_key.h"
#include "server/dispatch/task_match.h"
#include "server/dispatch/transitions.h"
#include "server/dispatch/work_estimate.h"

namespace lwq {
namespace {

constexpr int kMaxLeasesACall = 8;
constexpr int kMaxFaults = 3;
// Of what a worker says of its task: bytes.
constexpr size_t kMostWords = 512;

absl::Status LeaseLost(const std::string& task) {
  return Failure(reasons::kLeaseLost,
                 absl::StrCat("task ", task,
                              " is not leased under this epoch and "
                              "incarnation; whatever was computed is not counted"));
}

// The task's lease would be no message: nobody can have it.
void GiveUpTooLarge(Draft& draft, const std::string& key, const v1::Lease& lease) {
  v1::Failure failure;
  failure.set_reason(std::string(reasons::kLeaseTooLarge.name));
  failure.set_code(static_cast<int>(reasons::kLeaseTooLarge.code));
  failure.set_message(absl::StrCat("handing out ", KindOf(lease.spec()), " task ", key, " with ",
                                   lease.inputs_size(), " inputs takes ", lease.ByteSizeLong(),
                                   " bytes, at most ", kMaxLeaseBytes, " are sent"));
  failure.set_blame(BlameOf(failure.reason(), failure.code()));
  failure.set_task(key);
  GiveUpTask(draft, key, failure);
}

void RenewLease(const v1::LeaseBeat& beat, int64_t expires_us, int64_t now_us, LeaseStatus& lease) {
  lease.expires_us = expires_us;
  if (beat.progress() > lease.progress) lease.progress_us = now_us;
  if (beat.busy_seconds() > lease.busy_seconds) lease.busy_us = now_us;
  lease.progress = std::max(lease.progress, beat.progress());
  lease.busy_seconds = std::max(lease.busy_seconds, beat.busy_seconds());
  if (std::isfinite(beat.fraction())) lease.fraction = std::clamp(beat.fraction(), 0.0, 1.0);
  // They are in answers about the job, which have to be messages.
  lease.current = std::string(CutToCharacters(beat.current(), kMostWords));
  lease.waits_for = std::string(CutToCharacters(beat.waits_for(), kMostWords));
}

// A worker failed what another has done: after some of these in a row it gets no more.
void CountFault(Draft& draft, const std::string& process) {
  const std::string id = process.substr(0, process.find('/'));
  const v1::WorkerRecord* found = draft.FindWorker(id);
  if (found == nullptr || ProcessName(found->registration()) != process) return;
  v1::WorkerRecord& worker = *draft.EditWorker(id);
  worker.set_faults(worker.faults() + 1);
  if (worker.faults() < kMaxFaults || worker.cordoned()) return;
  worker.set_cordoned(true);
  worker.set_cordon_reason(absl::StrCat("failed ", worker.faults(),
                                        " tasks in a row that other workers then did; mend it and "
                                        "start it anew, or uncordon it"));
}

// A process that starts measures its rate anew, and not exactly as its predecessor did: on a busy
// machine half of it is common. What tasks took is known, so it stays what it was in seconds.
void KeepPaces(const v1::RegisterWorkerRequest& request, v1::WorkerRecord& worker) {
  const double before = worker.registration().operations_per_second();
  const double now = request.operations_per_second();
  if (before <= 0 || now <= 0) return;
  for (auto& [name, pace] : *worker.mutable_paces()) {
    pace.set_expected_seconds(pace.expected_seconds() * before / now);
  }
}

}  // namespace

absl::Status CheckWorker(const v1::WorkerRecord* worker, const std::string& worker_id,
                         const std::string& incarnation) {
  if (worker == nullptr) {
    return Failure(reasons::kWorkerUnknown,
                   absl::StrCat("worker ", worker_id, " is not registered: register first"));
  }
  if (worker->registration().incarnation() != incarnation) {
    return Failure(reasons::kIncarnationSuperseded,
                   absl::StrCat("a newer process has registered as worker ", worker_id));
  }
  return absl::OkStatus();
}

absl::Status CheckLease(const v1::TaskRecord* task, const std::string& key, int64_t epoch,
                        const std::string& worker, const std::string& incarnation) {
  if (task == nullptr || task->state() != v1::TaskRecord::LEASED || task->epoch() != epoch ||
      task->worker() != worker || task->incarnation() != incarnation) {
    return LeaseLost(key);
  }
  return absl::OkStatus();
}

absl::Status RegisterWorker(Draft& draft, const v1::RegisterWorkerRequest& request) {
  const v1::WorkerRecord* old = draft.FindWorker(request.worker_id());
  const bool same = old != nullptr && old->registration().incarnation() == request.incarnation();
  v1::WorkerRecord worker;
  if (old != nullptr) worker = *old;
  KeepPaces(request, worker);
  *worker.mutable_registration() = request;
  worker.set_registered_us(draft.now_us());
  worker.clear_left();
  if (!same && !worker.cordon_reason().empty()) {
    // A new process may be a mended one.
    worker.set_cordoned(false);
    worker.clear_cordon_reason();
  }
  if (!same) worker.clear_faults();
  draft.PutWorker(std::move(worker));
  if (same) return absl::OkStatus();
  const std::set<std::string> lost = draft.state().LeasesOf(request.worker_id());
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
  if (worker->left()) {
    // One that lives all the same has registered with a server that did not know of leaving.
    return Failure(reasons::kWorkerUnknown, absl::StrCat("worker ", request.worker_id(),
                                                         " said that it leaves: register first"));
  }
  std::vector<v1::Lease> leases;
  if (worker->cordoned()) return leases;
  const int count = std::clamp(request.max_tasks(), 1, kMaxLeasesACall);
  size_t bytes = 0;
  for (const Rank& rank : PickTasks(draft, *worker, count)) {
    const v1::TaskRecord* ready = draft.FindTask(KeyOf(rank));
    // One that was given up may have taken others of its job with it.
    if (ready == nullptr || ready->state() != v1::TaskRecord::READY) continue;
    v1::Lease lease = MakeLease(draft, *ready, draft.state().options().lease_ttl_us);
    if (lease.ByteSizeLong() > kMaxLeaseBytes) {
      GiveUpTooLarge(draft, KeyOf(rank), lease);
      continue;
    }
    bytes += lease.ByteSizeLong();
    if (bytes > kMaxLeaseBytes) break;  // it comes with the next call
    v1::TaskRecord& task = *draft.EditTask(KeyOf(rank));
    task.set_state(v1::TaskRecord::LEASED);
    task.set_epoch(draft.NextEpoch());
    task.set_worker(request.worker_id());
    task.set_incarnation(request.incarnation());
    task.set_leased_us(draft.now_us());
    lease.set_epoch(task.epoch());
    leases.push_back(std::move(lease));
    draft.effects.task_counts.push_back({task.kind(), v1::TaskEvent::LEASED});
    NoteHandedOut(draft, task, *worker);
    *task.mutable_untold() = task.jobs();
    TellJobs(draft, KeyOf(rank));
  }
  return leases;
}

absl::StatusOr<v1::HeartbeatResponse> Heartbeat(DispatchState& state, Moment now,
                                                const v1::HeartbeatRequest& request,
                                                std::set<std::string>& touched) {
  auto worker = state.workers().find(request.worker_id());
  LWQ_RETURN_IF_ERROR(CheckWorker(worker == state.workers().end() ? nullptr : &worker->second,
                                  request.worker_id(), request.incarnation()));
  state.SawWorker(request.worker_id(), now.steady_us);
  const Draft view(state, now);
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
    RenewLease(beat, now.steady_us + state.options().lease_ttl_us, now.steady_us, *lease);
    touched.insert(task->jobs().begin(), task->jobs().end());
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
  LWQ_RETURN_IF_ERROR(CheckOutput(*task, draft.FindModel(task->model()), request.output()));
  v1::TaskRecord& done = *draft.EditTask(request.task());
  done.set_completion_id(request.completion_id());
  done.set_operations(OperationsDone(draft, done, request.output()));
  if (v1::WorkerRecord* worker = draft.EditWorker(request.worker_id())) {
    worker->set_tasks_done(worker->tasks_done() + 1);
    worker->clear_faults();
    NotePace(done, request.output().seconds(), *worker);
  }
  for (const std::string& process : done.excluded()) CountFault(draft, process);
  done.clear_excluded();
  FinishTask(draft, request.task(), request.output());
  return absl::OkStatus();
}

absl::Status ReleaseTasks(Draft& draft, const v1::ReleaseTasksRequest& request) {
  const v1::WorkerRecord* worker = draft.FindWorker(request.worker_id());
  LWQ_RETURN_IF_ERROR(CheckWorker(worker, request.worker_id(), request.incarnation()));
  for (const v1::HeldLease& lease : request.leases()) {
    // One that is sent again may come when its worker has the task anew.
    const absl::Status held = CheckLease(draft.FindTask(lease.task()), lease.task(), lease.epoch(),
                                         request.worker_id(), request.incarnation());
    if (held.ok()) RequeueTask(draft, lease.task(), draft.now_us(), "given back by its worker");
  }
  if (!request.leaving()) return absl::OkStatus();
  // And what it never heard that it has: a poll was under way when it stopped.
  const std::set<std::string> held = draft.state().LeasesOf(request.worker_id());
  for (const std::string& key : held) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || task->state() != v1::TaskRecord::LEASED) continue;
    RequeueTask(draft, key, draft.now_us(), "its worker left");
  }
  draft.EditWorker(request.worker_id())->set_left(true);
  return absl::OkStatus();
}

}  // namespace lwq
