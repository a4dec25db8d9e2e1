// What goes wrong with leased tasks: failures that workers report, workers that vanish or stand
// still, tasks that nobody can run.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "records/canonical.h"
#include "server/dispatch/engine_choice.h"
#include "server/dispatch/failure_policy.h"
#include "server/dispatch/task_match.h"
#include "server/dispatch/transitions.h"

namespace lwq {
namespace {

// A step that keeps the worker's cores busy is at work, but not for ever: so many stall times.
constexpr int kBusyStalls = 12;
constexpr size_t kMostMessageBytes = 4096;

// As base/failure.def has them; what a worker of another version has may be none of these.
bool IsReasonsForm(absl::string_view reason) {
  return !reason.empty() && reason.size() <= 64 &&
         std::all_of(reason.begin(), reason.end(), [](unsigned char c) {
           return absl::ascii_isupper(c) || absl::ascii_isdigit(c) || c == '_';
         });
}

v1::Failure ServiceFailure(absl::string_view reason, absl::StatusCode code, std::string message) {
  v1::Failure failure;
  failure.set_reason(std::string(reason));
  failure.set_code(static_cast<int>(code));
  failure.set_message(std::move(message));
  failure.set_blame(v1::Failure::SERVICE);
  return failure;
}

// Whether a worker that did not fail the task may be expected to take it.
bool AnotherCanRun(const Draft& draft, const v1::TaskRecord& task) {
  const TaskNeed need = NeedOf(task);
  const auto& workers = draft.state().workers();
  return std::any_of(workers.begin(), workers.end(), [&](const auto& entry) {
    const v1::WorkerRecord* worker = draft.FindWorker(entry.first);
    return worker != nullptr && !worker->cordoned() &&
           !draft.state().IsLost(entry.first, draft.steady_us()) &&
           !IsExcluded(task, worker->registration()) && CanRun(worker->registration(), need);
  });
}

// A worker says that a blob is gone: the server looks, for every job that wants the task. What is
// said while it does is of the same loss.
void DoubtInputs(Draft& draft, const std::vector<std::string>& jobs) {
  for (const std::string& name : jobs) {
    v1::JobRecord* job = draft.EditJob(name);
    if (job == nullptr || IsTerminal(job->job().state()) || job->inputs_doubted()) continue;
    job->set_inputs_doubted(true);
    draft.effects.rebuild_jobs.insert(name);
  }
}

// Notes that `process` failed the task; false when it is to be given up.
bool CountFailure(Draft& draft, const std::string& process, const RetryDecision& decision,
                  v1::TaskRecord& task) {
  if (decision.exclude && !Contains(task.excluded(), process)) task.add_excluded(process);
  const bool another = decision.exclude && decision.elsewhere && AnotherCanRun(draft, task);
  if (!IsWanted(draft, task) || (!decision.again && !another)) return false;
  // With nobody else to take it the same worker may try again.
  if (!another) task.clear_excluded();
  if (decision.counts) {
    task.set_attempt(task.attempt() + 1);
  } else {
    task.set_transient_count(task.transient_count() + 1);
  }
  return true;
}

// No input of the task is lost, so its failure was its worker's.
void DismissDoubt(Draft& draft, const std::string& key) {
  v1::TaskRecord& task = *draft.EditTask(key);
  const std::string process = task.doubted_by();
  const v1::Failure failure = task.failure();
  task.clear_doubted_by();
  const RetryDecision decision = DecideRetry(task, failure, /*inputs_whole=*/true);
  const bool again = CountFailure(draft, process, decision, task);
  if (task.state() != v1::TaskRecord::READY) return;  // somebody has it again
  if (again) {
    task.set_ready_us(draft.now_us() + absl::ToInt64Microseconds(decision.delay));
  } else {
    GiveUpTask(draft, key, failure);
  }
}

void FailStalled(Draft& draft, const v1::TaskRecord& task, int64_t stall_us) {
  v1::FailTaskRequest stalled;
  stalled.set_worker_id(task.worker());
  stalled.set_incarnation(task.incarnation());
  stalled.set_task(task.key());
  stalled.set_epoch(task.epoch());
  *stalled.mutable_failure() = ServiceFailure(
      reasons::kTaskStalled.name, absl::StatusCode::kDeadlineExceeded,
      absl::StrCat(task.kind(), " made no progress for ", stall_us / 1'000'000, " s"));
  // Holds the lease by construction, so this cannot be refused.
  FailTask(draft, stalled).IgnoreError();
}

// Tasks whose last hope among the workers has gone, after others refused them. One that may run
// again where it failed does so.
void GiveUpRefused(Draft& draft) {
  for (const std::string& key : draft.state().refused()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || task->state() != v1::TaskRecord::READY || !IsWanted(draft, *task) ||
        AnotherCanRun(draft, *task)) {
      continue;
    }
    if (MayRunAgainThere(*task)) {
      draft.EditTask(key)->clear_excluded();
      ++draft.effects.tasks_ready;  // for the poll of a worker that it was kept from
      continue;
    }
    const v1::Failure failure = task->failure();
    GiveUpTask(draft, key, failure);
  }
}

// How many times longer than others a job waits of which something is computed already.
constexpr int kBegunPatience = 10;

// Tasks that were done for the job and that another class has to do again.
int NumComputed(const Draft& draft, const v1::JobRecord& job) {
  return static_cast<int>(
      std::count_if(job.tasks().begin(), job.tasks().end(), [&](const std::string& key) {
        const v1::TaskRecord* task = draft.FindTask(key);
        return task != nullptr && task->state() == v1::TaskRecord::DONE &&
               !task->needs().numerics_class().empty() && task->kind() != "preflight";
      }));
}

// Whether a worker that is away without having said that it leaves could go on with what the job has:
// a machine starts anew, or a driver does.
bool MayGoOn(const Draft& draft, const v1::JobRecord& job, const TaskNeed& need) {
  const auto& workers = draft.state().workers();
  const bool known = std::any_of(workers.begin(), workers.end(), [&](const auto& worker) {
    const v1::WorkerRecord& record = worker.second;
    const v1::RegisterWorkerRequest& one = record.registration();
    return !record.left() && record.cordon_reason().empty() &&
           one.numerics_class() == job.engine().numerics_class() && CanRun(one, need) &&
           CanonicalBytes(EngineOf(one)) == CanonicalBytes(job.engine());
  });
  return known && NumComputed(draft, job) > 0;
}

void GiveUpUnmatched(Draft& draft) {
  const DispatchOptions& options = draft.state().options();
  for (const auto& [need, group] : draft.state().ready().groups()) {
    if (group.unmatched_since_us == 0 ||
        group.unmatched_since_us + options.gone_us > draft.steady_us()) {
      continue;
    }
    std::string why = "no worker is registered";
    for (const auto& [id, worker] : draft.state().workers()) {
      const std::string lacks = WhyNot(worker.registration(), need);
      why = lacks.empty() ? absl::StrCat("worker ", id, " could, but is silent")
                          : absl::StrCat("worker ", id, " ", lacks);
      if (lacks.empty()) break;
    }
    for (const std::string& key : group.Keys()) {
      const v1::TaskRecord* task = draft.FindTask(key);
      if (task == nullptr || task->state() != v1::TaskRecord::READY) continue;
      v1::Failure failure = ServiceFailure(
          reasons::kNoMatchingWorker.name, absl::StatusCode::kUnavailable,
          absl::StrCat("for ", options.gone_us / 1'000'000, " s no worker could run ", task->kind(),
                       ": ", why, "; start one that can, and retry"));
      failure.set_blame(v1::Failure::CAPACITY);
      failure.set_task(key);
      GiveUpTask(draft, key, failure);
    }
  }
}

// Jobs with a task that no worker of their class is there to run, and such a task of each.
std::map<std::string, std::string> StuckJobs(const Draft& draft) {
  const DispatchState& state = draft.state();
  std::map<std::string, std::string> jobs;
  for (const auto& [need, group] : state.ready().groups()) {
    if (group.unmatched_since_us == 0) continue;
    const int64_t unmatched_us = draft.steady_us() - group.unmatched_since_us;
    if (unmatched_us < LostAfterUs(state.options())) continue;
    std::set<std::string> asked;  // each job once, however many of its tasks are in the group
    for (const std::string& key : group.Keys()) {
      for (const std::string& name : state.tasks().at(key).jobs()) {
        if (jobs.count(name) > 0 || !asked.insert(name).second) continue;
        const v1::JobRecord* job = draft.FindJob(name);
        if (job == nullptr) continue;
        const bool waits = unmatched_us < kBegunPatience * LostAfterUs(state.options()) &&
                           MayGoOn(draft, *job, need);
        if (!waits) jobs.emplace(name, key);
      }
    }
  }
  return jobs;
}

// The workers of a job's class have left, an upgrade took them perhaps, and others are there that
// can run it: the job is built again, under the class of those.
void ChangeEngine(Draft& draft) {
  const DispatchState& state = draft.state();
  const bool anybody = std::any_of(
      state.workers().begin(), state.workers().end(),
      [&](const auto& worker) { return !state.IsLost(worker.first, draft.steady_us()); });
  if (!anybody) return;
  std::map<std::set<TaskNeed>, EngineChoice> choices;  // most jobs need the same
  for (const auto& [name, stuck] : StuckJobs(draft)) {
    const v1::JobRecord* job = draft.FindJob(name);
    if (job == nullptr || IsTerminal(job->job().state()) || job->rebuilding()) continue;
    const auto [known, is_new] = choices.try_emplace(NeedsOf(state, *job));
    if (is_new) known->second = ChooseEngine(state, draft.steady_us(), known->first);
    const EngineChoice& choice = known->second;
    if (!choice.can_run || CanonicalBytes(choice.engine) == CanonicalBytes(job->engine())) continue;
    v1::JobRecord& changed = *draft.EditJob(name);
    const int again = NumComputed(draft, changed);
    const std::string why =
        absl::StrCat("no worker of the class ", changed.engine().numerics_class(),
                     " is left that can run it: workers of ", choice.engine.numerics_class(),
                     " do, and what was computed (", again, again == 1 ? " task" : " tasks",
                     ") is computed again");
    if (again > 0) changed.mutable_job()->add_warnings(why);
    PushTaskEvent(draft, changed, *draft.FindTask(stuck), v1::TaskEvent::RETRY, why);
    *changed.mutable_engine() = choice.engine;
    changed.set_rebuilding(true);
    draft.effects.rebuild_jobs.insert(name);
  }
}

// Whether an operator said that it gets no tasks, and may still rely on it.
bool IsKeptCordoned(const v1::WorkerRecord& worker, int64_t now_us) {
  return worker.cordoned() && worker.cordon_reason().empty() &&
         now_us < worker.cordoned_us() + kCordonKeptUs;
}

void ForgetGoneWorkers(Draft& draft) {
  const DispatchState& state = draft.state();
  for (const auto& [id, worker] : state.workers()) {
    if (state.SeenUs(id) + state.options().gone_us <= draft.steady_us() &&
        state.LeasesOf(id).empty() && !IsKeptCordoned(worker, draft.now_us())) {
      draft.DeleteWorker(id);
    }
  }
}

}  // namespace

void LoseLease(Draft& draft, const std::string& key, absl::string_view why) {
  v1::TaskRecord& task = *draft.EditTask(key);
  const std::string worker = task.worker();
  task.set_lost_count(task.lost_count() + 1);
  auto& lost = *task.mutable_lost_workers();
  if (std::find(lost.begin(), lost.end(), worker) == lost.end()) task.add_lost_workers(worker);
  if (IsPoison(task) && IsWanted(draft, task)) {
    v1::Failure failure;
    failure.set_reason(std::string(reasons::kCrashLoop.name));
    failure.set_message(absl::StrCat(task.kind(), " of layer ", task.layer(), " was lost ",
                                     task.lost_count(), " times on ", task.lost_workers_size(),
                                     " workers (last: ", why, "); it is not handed out again"));
    failure.set_blame(v1::Failure::SERVICE);
    failure.set_code(static_cast<int>(reasons::kCrashLoop.code));
    failure.set_task(key);
    failure.set_worker(worker);
    GiveUpTask(draft, key, failure);
    return;
  }
  RequeueTask(draft, key, draft.now_us(), why);
}

absl::Status FailTask(Draft& draft, const v1::FailTaskRequest& request) {
  const v1::TaskRecord* held = draft.FindTask(request.task());
  LWQ_RETURN_IF_ERROR(CheckLease(held, request.task(), request.epoch(), request.worker_id(),
                                 request.incarnation()));
  v1::TaskRecord& task = *draft.EditTask(request.task());
  v1::Failure failure = request.failure();
  failure.set_task(request.task());
  failure.set_worker(request.worker_id());
  if (!IsReasonsForm(failure.reason())) failure.set_reason(std::string(reasons::kInternal.name));
  // It is in lists, events and the records of whatever waits for the task.
  failure.set_message(RepairUtf8(CutToCharacters(failure.message(), kMostMessageBytes)));
  if (failure.blame() == v1::Failure::BLAME_UNSPECIFIED) {
    failure.set_blame(BlameOf(failure.reason(), failure.code()));
  }
  const std::string process = absl::StrCat(request.worker_id(), "/", request.incarnation());
  // A model's verification has no inputs that could be made again.
  const RetryDecision decision =
      DecideRetry(task, failure, /*inputs_whole=*/task.models_size() > 0);
  *task.mutable_failure() = failure;
  if (decision.lost_inputs) {
    task.set_doubted_by(process);
    task.set_transient_count(task.transient_count() + 1);
    DoubtInputs(draft, {task.jobs().begin(), task.jobs().end()});
  } else if (!CountFailure(draft, process, decision, task)) {
    GiveUpTask(draft, request.task(), failure);
    return absl::OkStatus();
  }
  RequeueTask(draft, request.task(), draft.now_us() + absl::ToInt64Microseconds(decision.delay),
              failure.message());
  return absl::OkStatus();
}

void DismissDoubts(Draft& draft, const std::string& name) {
  v1::JobRecord* job = draft.EditJob(name);
  if (job == nullptr || IsTerminal(job->job().state())) return;
  job->set_inputs_doubted(false);
  const std::vector<std::string> keys(job->tasks().begin(), job->tasks().end());
  for (const std::string& key : keys) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task != nullptr && !task->doubted_by().empty()) DismissDoubt(draft, key);
  }
}

void ReapLeases(Draft& draft) {
  const int64_t now = draft.steady_us();
  const int64_t stall = draft.state().options().stall_us;
  for (const auto& [key, lease] : draft.state().leases()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || task->state() != v1::TaskRecord::LEASED) continue;
    if (lease.expires_us <= now) {
      ++draft.effects.leases_expired;
      LoseLease(
          draft, key,
          absl::StrCat("nothing was heard of worker ", task->worker(), " for the time of a lease"));
    } else if (stall > 0 && lease.progress_us + stall <= now &&
               (lease.busy_us + stall <= now || lease.progress_us + kBusyStalls * stall <= now)) {
      FailStalled(draft, *task, stall);
    }
  }
  GiveUpRefused(draft);
  ChangeEngine(draft);
  GiveUpUnmatched(draft);
  ForgetGoneWorkers(draft);
}

}  // namespace lwq
