// What tenants are promised: their quotas hold, and none starves.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/simulation/promises.h"

namespace lwq::simulation {

void Promises::LeaseEnds(const v1::TaskRecord& task) {
  const absl::Duration began = began_[task.key()];
  const absl::Duration took = world_.now() - began;
  longest_lease_ = std::max(longest_lease_, took);
  for (auto& [tenant, turn] : turns_) {
    if (tenant != TenantOf(task) && began >= turn.since) turn.others += took;
  }
}

void Promises::CheckTurns() {
  std::set<std::string> waiting;
  for (const auto& [key, task] : tasks_) {
    // Of one that was given back it is not known here when it may be handed out again.
    if (task.state() != v1::TaskRecord::READY || task.ready_us() != 0) continue;
    const bool is_wanted =
        std::any_of(task.jobs().begin(), task.jobs().end(), [&](const std::string& name) {
          const auto job = jobs_.find(name);
          return job != jobs_.end() && !job->second.held() &&
                 job->second.job().state() != v1::Job::CANCELLING;
        });
    if (is_wanted) waiting.insert(TenantOf(task));
  }
  std::erase_if(turns_, [&](const auto& turn) { return waiting.count(turn.first) == 0; });
  // Fair queueing is off by a task of each at most, for each worker; one tenant weighs half.
  const absl::Duration most = 3 * (workers_.size() + 1) * longest_lease_;
  for (const std::string& tenant : waiting) {
    const Turn& turn =
        turns_.try_emplace(tenant, Turn{world_.now(), absl::ZeroDuration()}).first->second;
    if (turn.others <= most) continue;
    world_.Break("I11", absl::StrCat("tenant ", tenant, " waits since ",
                                     absl::FormatDuration(turn.since), ", and others have had ",
                                     absl::FormatDuration(turn.others), " of the workers"));
  }
}

void Promises::CheckQuotas() {
  std::map<std::string, int> at_work;
  for (const auto& [name, job] : jobs_) {
    if (!IsTerminal(job.job().state()) && !job.held()) ++at_work[TenantOf(job.job())];
  }
  for (const auto& [tenant, count] : at_work) {
    const int most = OptionsOf(dispatch_.tenants, tenant).max_running_jobs;
    if (most == 0 || count <= most) continue;
    world_.Break("I9",
                 absl::StrCat("tenant ", tenant, " has ", count, " jobs at work, at most ", most));
  }
}

}  // namespace lwq::simulation
