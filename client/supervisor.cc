#include "client/supervisor.h"

#include <signal.h>
#include <sys/wait.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/retry.h"
#include "base/status_macros.h"
#include "client/process.h"

namespace lwq::client {
namespace {

constexpr int kRefusedConfiguration = 78;
constexpr int64_t kTailBytes = 1500;

}  // namespace

std::string DescribeExit(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return absl::StrCat("was killed by signal ", WTERMSIG(wait_status));
  }
  return absl::StrCat("exited with status ", WEXITSTATUS(wait_status));
}

Supervisor::Supervisor(SupervisorOptions options, std::vector<ChildSpec> children)
    : options_(std::move(options)) {
  for (ChildSpec& spec : children) children_.push_back(Child{.spec = std::move(spec)});
}

absl::Status Supervisor::Run() {
  absl::Status status;
  while (status.ok() && (!options_.wanted || options_.wanted())) {
    for (Child& child : children_) {
      status = child.pid == 0 ? StartIfDue(&child) : ReapIfDead(&child);
      if (!status.ok()) break;
    }
    if (status.ok()) absl::SleepFor(options_.poll);
  }
  StopAll();
  return status;
}

absl::Status Supervisor::StartIfDue(Child* child) {
  if (absl::Now() < child->start_at) return absl::OkStatus();
  const ChildSpec& spec = child->spec;
  if (!spec.start_after.empty() && !FileExists(spec.start_after)) return absl::OkStatus();
  if (!spec.ready_file.empty()) LWQ_RETURN_IF_ERROR(RemoveAll(spec.ready_file));
  LWQ_ASSIGN_OR_RETURN(
      child->pid,
      StartProcess({.argv = spec.argv, .log_path = spec.log_path, .die_with_parent = true}));
  child->started = absl::Now();
  return absl::OkStatus();
}

absl::Status Supervisor::ReapIfDead(Child* child) {
  int wait_status = 0;
  const pid_t done = ::waitpid(child->pid, &wait_status, WNOHANG);
  if (done == 0 || (done < 0 && errno == EINTR)) return absl::OkStatus();
  child->pid = 0;
  const bool quick = absl::Now() - child->started < options_.quick;
  child->quick_deaths = quick ? child->quick_deaths + 1 : 0;
  const bool refused = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == kRefusedConfiguration;
  if (refused || child->quick_deaths >= options_.most_quick_deaths) {
    return Failure(
        reasons::kChildDied,
        absl::StrCat(child->spec.name, " ", DescribeExit(wait_status),
                     refused ? "" : " again and again", "; the end of its log ",
                     child->spec.log_path, ":\n", LogTail(child->spec.log_path, kTailBytes)));
  }
  const RetryPolicy policy = {.first_wait = options_.first_backoff,
                              .longest_wait = options_.longest_backoff};
  child->start_at = absl::Now() + WaitAfter(policy, child->quick_deaths - 1);
  return absl::OkStatus();
}

void Supervisor::StopAll() {
  for (auto child = children_.rbegin(); child != children_.rend(); ++child) {
    if (child->pid == 0) continue;
    ::kill(child->pid, SIGTERM);
    const absl::Time deadline = absl::Now() + options_.stop_grace;
    bool killed = false;
    while (::waitpid(child->pid, nullptr, WNOHANG) == 0) {
      if (!killed && absl::Now() > deadline) {
        ::kill(child->pid, SIGKILL);
        killed = true;
      }
      absl::SleepFor(absl::Milliseconds(10));
    }
    child->pid = 0;
  }
}

}  // namespace lwq::client
