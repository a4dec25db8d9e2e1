// logs: what happened to a job, from its submission on, as the server recorded it.
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "client/commands/job_argument.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/event_text.h"
#include "client/results.h"
#include "client/session.h"
#include "client/watch.h"
#include "client/work_text.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 2> kFlags = {{
    {"follow", "", "go on until the job ends"},
    {"since", "SEQ", "only events after this one, as --json numbers them"},
}};

// The last event that there was is read: ends the stream without being an error of anybody's.
absl::Status Enough() { return absl::CancelledError("all that there was is read"); }

absl::StatusOr<int> Run(Invocation& invocation) {
  const Flags& flags = invocation.flags;
  constexpr int64_t kMost = int64_t{1} << 60;
  LWQ_ASSIGN_OR_RETURN(const int64_t since, flags.GetInt("since", 0, 0, kMost));
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(flags));
  LWQ_ASSIGN_OR_RETURN(const std::string name,
                       JobArgument(session->client(), invocation.arguments[0]));
  LWQ_ASSIGN_OR_RETURN(const v1::Job before, session->client()->GetJob(name));
  const int64_t last = before.last_event_seq();
  const bool follow = flags.Has("follow") && !IsTerminal(before.state());
  // What does not get on now is no event that is kept: a store without room could not keep it.
  Standing standing;
  const auto print_standing = [&](const v1::Progress& progress) {
    for (const v1::RunningTask& task : standing.Take(progress)) {
      if (flags.Has("json")) continue;
      *invocation.out << TimeText(absl::Now()) << "  " << RunningText(task) << std::endl;
    }
  };
  if (!follow && since >= last) {
    print_standing(before.progress());
    return kExitOk;
  }
  bool read_all = false;
  const auto print = [&](const v1::JobEvent& event) -> absl::Status {
    if (event.has_progress()) print_standing(event.progress());
    if (event.has_task() || event.has_state()) {
      if (flags.Has("json")) {
        LWQ_ASSIGN_OR_RETURN(const std::string json, ToJson(event, /*indented=*/false));
        *invocation.out << json << std::endl;
      } else {
        *invocation.out << EventText(event) << std::endl;
      }
    }
    read_all = event.seq() >= last;
    return follow || !read_all ? absl::OkStatus() : Enough();
  };
  const absl::StatusOr<v1::Job> job =
      WatchJob(session->client(), name, print, nullptr, {.seq = since, .first_event = true});
  if (!job.ok() && !(read_all && absl::IsCancelled(job.status()) && !IsInterrupted(job.status()))) {
    return job.status();
  }
  if (!follow) print_standing(before.progress());
  return follow && job.ok() ? JobExitCode(*job) : kExitOk;
}

}  // namespace

extern const CommandDef kLogsCommand;
constinit const CommandDef kLogsCommand = {
    .name = "logs",
    .arguments = "JOB",
    .summary = "Prints what happened to a job: every task, where it ran and how long; failures.",
    .examples =
        "  lwqctl logs j-1\n  lwqctl logs j-1 --follow\n"
        "The logs of server and workers name the same jobs and tasks: grep job=j-1 server.log\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
