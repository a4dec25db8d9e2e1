#include "server/dispatch/task_wait.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/dispatch/pick_tasks.h"
#include "server/dispatch/task_match.h"

namespace lwq {
namespace {

constexpr size_t kMostNamed = 3;

std::string SecondsText(int64_t us) { return absl::StrCat((us + 999'999) / 1'000'000, " s"); }

// Since when nothing was heard of the worker, where that is longer than it should be; else "".
std::string SilenceText(const Draft& draft, const std::string& id) {
  const v1::Worker::State state = draft.state().StateOf(id, draft.steady_us());
  if (state == v1::Worker::LEFT) return absl::StrCat(id, " has ended");
  if (state != v1::Worker::SILENT && state != v1::Worker::LOST) return "";
  const int64_t seen = draft.state().SeenUs(id);
  if (seen == 0) return absl::StrCat(id, " has not been heard of since the server started");
  return absl::StrCat(id, " was last heard of ", SecondsText(draft.steady_us() - seen), " ago");
}

// Why this worker does not take the task; "" where it may at any moment, "busy" where it will once
// it is free.
constexpr absl::string_view kBusy = "busy";
std::string WhyNotNow(const Draft& draft, const std::string& id, const v1::WorkerRecord& worker,
                      const v1::TaskRecord& task, const TaskNeed& need) {
  const DispatchState& state = draft.state();
  if (const std::string lacks = WhyNot(worker.registration(), need); !lacks.empty()) {
    return absl::StrCat(id, " ", lacks);
  }
  if (IsExcluded(task, worker.registration())) return absl::StrCat(id, " failed it");
  if (worker.cordoned()) return absl::StrCat(id, " is cordoned");
  if (std::string silence = SilenceText(draft, id); !silence.empty()) return silence;
  return state.LeasesOf(id).empty() ? "" : std::string(kBusy);
}

std::string WhyNobodyTakesIt(const Draft& draft, const v1::TaskRecord& task) {
  const auto& workers = draft.state().workers();
  if (workers.empty()) return "no worker has registered yet";
  const TaskNeed need = NeedOf(task);
  std::vector<std::string> reasons;
  int busy = 0;
  for (const auto& [id, worker] : workers) {
    std::string why = WhyNotNow(draft, id, worker, task, need);
    if (why.empty()) return absl::StrCat("worker ", id, " is free and will ask for it");
    if (why == kBusy) ++busy;
    if (why != kBusy) reasons.push_back(std::move(why));
  }
  if (busy > 0) {
    const std::string share =
        HasHadItsShare(draft.state(), task)
            ? absl::StrCat("; tenant ", TenantOf(task),
                           " has had its share lately, so that tasks of others come first")
            : "";
    return absl::StrCat("waits for a free worker; ", busy, busy == 1 ? " is" : " are", " busy",
                        share);
  }
  const size_t more = reasons.size() > kMostNamed ? reasons.size() - kMostNamed : 0;
  reasons.resize(reasons.size() - more);
  return absl::StrCat("no worker can take it: ", absl::StrJoin(reasons, "; "),
                      more > 0 ? absl::StrCat("; and ", more, " more") : "");
}

WhyNobody& Remembered(const Draft& draft) {
  if (draft.state().workers().size() < kManyWorkers) return draft.why_nobody;
  WaitMemo& memo = draft.state().wait_memo();
  IsRemembered(memo, draft.steady_us());
  return memo.why;
}

std::string WhatBlocks(const Draft& draft, const v1::TaskRecord& task) {
  std::vector<std::string> kinds;
  int open = 0;
  for (const v1::TaskDependency& dependency : task.dependencies()) {
    const v1::TaskRecord* on = draft.FindTask(dependency.key());
    if (on == nullptr || on->state() == v1::TaskRecord::DONE) continue;
    ++open;
    if (std::find(kinds.begin(), kinds.end(), on->kind()) == kinds.end()) {
      kinds.push_back(on->kind());
    }
  }
  if (open == 0) return "";
  return absl::StrCat("comes after ", open, open == 1 ? " task (" : " tasks (",
                      absl::StrJoin(kinds, ", "), ")");
}

}  // namespace

std::string WhyItWaits(const Draft& draft, const v1::TaskRecord& task) {
  if (task.state() == v1::TaskRecord::BLOCKED) return WhatBlocks(draft, task);
  if (task.state() != v1::TaskRecord::READY) return "";
  if (task.ready_us() > draft.now_us()) {
    return absl::StrCat("it failed and runs again in ",
                        SecondsText(task.ready_us() - draft.now_us()));
  }
  if (!task.excluded().empty()) return WhyNobodyTakesIt(draft, task);
  // Thousands of jobs may share a task that moves, and each asks.
  const auto [known, is_new] = Remembered(draft).try_emplace({TenantOf(task), NeedOf(task)});
  if (is_new) known->second = WhyNobodyTakesIt(draft, task);
  return known->second;
}

std::string WhyItStands(const Draft& draft, const v1::TaskRecord& task) {
  if (task.state() != v1::TaskRecord::LEASED) return "";
  const DispatchState& state = draft.state();
  if (std::string silence = SilenceText(draft, task.worker()); !silence.empty()) {
    const auto lease = state.leases().find(task.key());
    if (lease == state.leases().end()) return silence;
    const int64_t left = std::max<int64_t>(0, lease->second.expires_us - draft.steady_us());
    return absl::StrCat(silence, "; in ", SecondsText(left), " another one may take it");
  }
  const auto lease = state.leases().find(task.key());
  const bool known = lease != state.leases().end() && lease->second.epoch == task.epoch();
  return known ? lease->second.waits_for : "";
}

std::string WhyJobWaits(const Draft& draft, const v1::JobRecord& job) {
  if (job.held()) {
    const std::string tenant = TenantOf(job.job());
    const int most = OptionsOf(draft.state().options().tenants, tenant).max_running_jobs;
    return absl::StrCat("held: tenant ", tenant, " may have ", most, most == 1 ? " job" : " jobs",
                        " at work at a time, and has");
  }
  int ready = 0;
  const v1::TaskRecord* first = nullptr;
  for (const std::string& key : job.tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr) continue;
    if (task->state() == v1::TaskRecord::LEASED) return "";
    if (task->state() != v1::TaskRecord::READY) continue;
    ++ready;
    // One that may run now says more than one that waits for its time.
    const bool later = first != nullptr && first->ready_us() > draft.now_us();
    if (first == nullptr || (later && task->ready_us() <= draft.now_us())) first = task;
  }
  if (first == nullptr || job.plan_state() == v1::JobRecord::RUNNING) return "";
  return absl::StrCat(
      ready, ready == 1 ? " task is ready: " : " tasks are ready: ", WhyItWaits(draft, *first));
}

}  // namespace lwq
