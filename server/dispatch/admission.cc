// A tenant's quota of jobs at work: those beyond it are held, and begin as others end.
#include <algorithm>

#include "server/dispatch/progress.h"
#include "server/dispatch/transitions.h"

namespace lwq {
namespace {

// So many in one transaction: others are not kept waiting for longer.
constexpr int kAdmittedAtOnce = 16;

bool IsAtWork(const v1::JobRecord& job) { return !job.held() && !IsTerminal(job.job().state()); }

}  // namespace

int JobsAtWork(const Draft& draft, const std::string& tenant) {
  int count = draft.state().CountsOf(tenant).at_work;
  for (const auto& [name, job] : draft.changes.jobs) {
    const auto before = draft.state().jobs().find(name);
    const bool was = before != draft.state().jobs().end() && IsAtWork(before->second) &&
                     TenantOf(before->second.job()) == tenant;
    const bool is = job && IsAtWork(*job) && TenantOf(job->job()) == tenant;
    count += (is ? 1 : 0) - (was ? 1 : 0);
  }
  return count;
}

void AdmitJobs(Draft& draft, const std::string& tenant) {
  const int most = OptionsOf(draft.state().options().tenants, tenant).max_running_jobs;
  int admitted = 0;
  for (const auto& [priority, age, name] : draft.state().HeldJobsOf(tenant)) {
    if (most > 0 && JobsAtWork(draft, tenant) >= most) return;
    if (admitted == kAdmittedAtOnce) {
      draft.effects.admit_tenants.insert(tenant);
      return;
    }
    v1::JobRecord* job = draft.EditJob(name);
    if (job == nullptr || !job->held() || IsTerminal(job->job().state())) continue;
    job->set_held(false);
    ++admitted;
    // Those that are ready were handed to nobody while only it wanted them.
    for (const std::string& key : job->tasks()) {
      const v1::TaskRecord* task = draft.FindTask(key);
      if (task != nullptr && task->state() == v1::TaskRecord::READY) ++draft.effects.tasks_ready;
    }
    AdvanceJob(draft, name);
  }
}

}  // namespace lwq
