// watch: a job's progress to its end.
#include "client/watch.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/commands/job_argument.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/job_display.h"
#include "client/results.h"
#include "client/session.h"

namespace lwq::client {
namespace {

// --json: one event a line on stdout.
absl::StatusOr<v1::Job> WatchAsJson(Session* session, const std::string& name, std::ostream* out) {
  return WatchJob(session->client(), name, [out](const v1::JobEvent& event) -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const std::string json, ToJson(event, /*indented=*/false));
    *out << json << std::endl;
    return absl::OkStatus();
  });
}

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(const std::string name,
                       JobArgument(session->client(), invocation.arguments[0]));
  if (invocation.flags.Has("json")) {
    LWQ_ASSIGN_OR_RETURN(const v1::Job job, WatchAsJson(session.get(), name, invocation.out));
    return JobExitCode(job);
  }
  JobDisplay display(invocation.err, StderrIsTerminal());
  const absl::StatusOr<v1::Job> job = WatchJob(
      session->client(), name,
      [&](const v1::JobEvent& event) {
        display.OnEvent(event);
        return absl::OkStatus();
      },
      [&](const absl::Status&) { display.Note("connection to the server lost; reconnecting"); });
  display.Finish();
  if (!job.ok() && IsInterrupted(job.status())) {
    *invocation.err << "the job goes on; lwqctl cancel " << ShortName(name) << " stops it\n";
    return kExitInterrupted;
  }
  if (!job.ok()) return job.status();
  *invocation.out << JobText(*job, DatasetNames(session->client()));
  return JobExitCode(*job);
}

}  // namespace

extern const CommandDef kWatchCommand;
constinit const CommandDef kWatchCommand = {
    .name = "watch",
    .arguments = "JOB",
    .summary = "Shows a job's progress until it ends; exit code 1 when it failed.",
    .examples = "  lwqctl watch j-1\n  lwqctl watch j-1 --json    (one event a line)\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
