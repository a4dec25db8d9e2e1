// top: workers and jobs as they are now; redrawn on a terminal, printed once elsewhere.
#include "client/top.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/all_pages.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 1> kFlags = {{
    {"interval", "SECONDS",
     "look again so often (default 2 on a terminal; elsewhere it prints once)"},
}};

absl::StatusOr<std::vector<v1::Worker>> Workers(Client* client) {
  LWQ_ASSIGN_OR_RETURN(const v1::ListWorkersResponse all,
                       AllPages(client, &Client::ListWorkers, v1::ListWorkersRequest()));
  return std::vector<v1::Worker>(all.workers().begin(), all.workers().end());
}

// Those that run first, then those that wait.
absl::StatusOr<std::vector<v1::Job>> ActiveJobs(Client* client) {
  constexpr int kMostJobs = 100;
  std::vector<v1::Job> all;
  for (const v1::Job::State state : {v1::Job::RUNNING, v1::Job::CANCELLING, v1::Job::QUEUED}) {
    v1::ListJobsRequest request;
    request.set_state(state);
    request.set_page_size(kMostJobs);
    LWQ_ASSIGN_OR_RETURN(const v1::ListJobsResponse page, client->ListJobs(request));
    all.insert(all.end(), page.jobs().begin(), page.jobs().end());
  }
  return all;
}

absl::StatusOr<int> PrintAsJson(const Invocation& invocation, Client* client) {
  v1::ListWorkersResponse workers;
  LWQ_ASSIGN_OR_RETURN(const std::vector<v1::Worker> all, Workers(client));
  *workers.mutable_workers() = {all.begin(), all.end()};
  v1::ListJobsResponse jobs;
  LWQ_ASSIGN_OR_RETURN(const std::vector<v1::Job> active, ActiveJobs(client));
  *jobs.mutable_jobs() = {active.begin(), active.end()};
  LWQ_RETURN_IF_ERROR(PrintJson(invocation, workers).status());
  return PrintJson(invocation, jobs);
}

absl::StatusOr<int> Run(Invocation& invocation) {
  constexpr int64_t kMostSeconds = 3600;
  LWQ_ASSIGN_OR_RETURN(const int64_t interval,
                       invocation.flags.GetInt("interval", 2, 1, kMostSeconds));
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  if (invocation.flags.Has("json")) return PrintAsJson(invocation, session->client());
  const bool redraw = ::isatty(STDOUT_FILENO) == 1;
  const bool again = redraw || invocation.flags.Has("interval");
  while (true) {
    struct winsize size = {};
    if (!redraw || ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) size = {};
    LWQ_ASSIGN_OR_RETURN(const std::vector<v1::Worker> workers, Workers(session->client()));
    LWQ_ASSIGN_OR_RETURN(const std::vector<v1::Job> jobs, ActiveJobs(session->client()));
    const size_t height = size.ws_row > 1 ? size.ws_row - 1 : 0;
    std::string picture = redraw ? "\x1b[H\x1b[2J" : "";
    for (const std::string& line : TopLines(workers, jobs, size.ws_col, height)) {
      absl::StrAppend(&picture, line, "\n");
    }
    *invocation.out << picture << std::flush;
    if (!again) return kExitOk;
    const absl::Time next = absl::Now() + absl::Seconds(interval);
    while (absl::Now() < next) {
      if (absl::Status go_on = session->MayGoOn(); !go_on.ok()) {
        return IsInterrupted(go_on) ? absl::StatusOr<int>(kExitOk) : go_on;
      }
      absl::SleepFor(absl::Milliseconds(100));
    }
  }
}

}  // namespace

extern const CommandDef kTopCommand;
constinit const CommandDef kTopCommand = {
    .name = "top",
    .arguments = "",
    .summary = "Shows workers and active jobs as they are now, again and again on a terminal.",
    .examples = "  lwqctl top\n  lwqctl top | head    (once)\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 0,
    .run = Run,
};

}  // namespace lwq::client
