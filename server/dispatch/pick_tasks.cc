#include "server/dispatch/pick_tasks.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>

namespace lwq {
namespace {

// What of one tenant's the worker may have.
struct Candidates {
  std::vector<Rank> first;  // in their order, once sorted
  std::optional<std::pair<int64_t, Rank>> longest_wait;
  size_t next = 0;
  double used = 0;         // as Shares has it, with what the draft handed out
  int64_t num_served = 0;  // likewise
};

bool MayHave(const Draft& draft, const v1::WorkerRecord& worker, const std::string& key) {
  // One that goes to another worker in the same commit is in the queue still.
  const v1::TaskRecord* task = draft.FindTask(key);
  return task != nullptr && task->state() == v1::TaskRecord::READY &&
         !IsExcluded(*task, worker.registration());
}

void Collect(const Draft& draft, const v1::WorkerRecord& worker, const ReadyIndex::Line& line,
             int count, Candidates& candidates) {
  for (const Rank& rank : line.ranks) {
    if (count == 0) break;
    if (!MayHave(draft, worker, KeyOf(rank))) continue;
    candidates.first.push_back(rank);
    --count;
  }
  for (const auto& wait : line.by_wait) {
    if (wait.first + kLongWaitUs > draft.steady_us()) break;
    if (!MayHave(draft, worker, KeyOf(wait.second))) continue;
    if (!candidates.longest_wait || wait < *candidates.longest_wait) {
      candidates.longest_wait = wait;
    }
    break;
  }
}

// The tenant's next; null when it has no more.
const Rank* Next(Candidates& candidates, const std::vector<Rank>& picked) {
  const auto is_picked = [&](const Rank& rank) {
    return std::find(picked.begin(), picked.end(), rank) != picked.end();
  };
  const bool is_its_turn = candidates.num_served % kTurnOfLongestWait == kTurnOfLongestWait - 1;
  if (is_its_turn && candidates.longest_wait && !is_picked(candidates.longest_wait->second)) {
    return &candidates.longest_wait->second;
  }
  while (candidates.next < candidates.first.size() &&
         is_picked(candidates.first[candidates.next])) {
    ++candidates.next;
  }
  return candidates.next < candidates.first.size() ? &candidates.first[candidates.next] : nullptr;
}

}  // namespace

std::vector<Rank> PickTasks(const Draft& draft, const v1::WorkerRecord& worker, int count) {
  const Shares& shares = draft.state().shares();
  std::map<std::string, Candidates> tenants;
  for (const auto& [need, group] : draft.state().ready().groups()) {
    if (!CanRun(worker.registration(), need)) continue;
    for (const auto& [tenant, line] : group.lines) {
      Collect(draft, worker, line, count, tenants[tenant]);
    }
  }
  for (auto& [tenant, candidates] : tenants) {
    std::sort(candidates.first.begin(), candidates.first.end());
    candidates.used = shares.UsedBy(tenant);
    candidates.num_served = shares.NumServed(tenant);
    const auto handed_out = draft.handed_out.find(tenant);
    if (handed_out == draft.handed_out.end()) continue;
    candidates.used += handed_out->second.first;
    candidates.num_served += handed_out->second.second;
  }
  std::vector<Rank> picked;
  while (static_cast<int>(picked.size()) < count) {
    const std::string* whose = nullptr;
    Candidates* best = nullptr;
    const Rank* next = nullptr;
    for (auto& [tenant, candidates] : tenants) {
      if (best != nullptr && candidates.used >= best->used) continue;
      const Rank* rank = Next(candidates, picked);
      if (rank == nullptr) continue;
      whose = &tenant;
      best = &candidates;
      next = rank;
    }
    if (best == nullptr) break;
    picked.push_back(*next);
    const v1::TaskRecord& task = *draft.FindTask(KeyOf(picked.back()));
    best->used += shares.CostOf(*whose, ExpectedSeconds(task, &worker));
    ++best->num_served;
  }
  return picked;
}

void NoteHandedOut(Draft& draft, const v1::TaskRecord& task, const v1::WorkerRecord& worker) {
  const std::string tenant = TenantOf(task);
  auto& [used, count] = draft.handed_out[tenant];
  used += draft.state().shares().CostOf(tenant, ExpectedSeconds(task, &worker));
  ++count;
}

bool HasHadItsShare(const DispatchState& state, const v1::TaskRecord& task) {
  const auto group = state.ready().groups().find(NeedOf(task));
  if (group == state.ready().groups().end()) return false;
  const std::string own = TenantOf(task);
  const double used = state.shares().UsedBy(own);
  return std::any_of(group->second.lines.begin(), group->second.lines.end(), [&](const auto& line) {
    return line.first != own && state.shares().UsedBy(line.first) < used;
  });
}

}  // namespace lwq
