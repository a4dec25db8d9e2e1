// show: one job in full.
#include "base/status_macros.h"
#include "client/commands/job_argument.h"
#include "client/commands/output.h"
#include "client/session.h"

namespace lwq::client {
namespace {

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(const std::string name,
                       JobArgument(session->client(), invocation.arguments[0]));
  LWQ_ASSIGN_OR_RETURN(const v1::Job job, session->client()->GetJob(name));
  if (invocation.flags.Has("json")) return PrintJson(invocation, job);
  *invocation.out << JobText(job, DatasetNames(session->client()));
  return 0;
}

}  // namespace

extern const CommandDef kShowCommand;
constinit const CommandDef kShowCommand = {
    .name = "show",
    .arguments = "JOB",
    .summary = "Prints a job: state, plan, measurements, failure.",
    .examples = "  lwqctl show j-1\n  lwqctl show j-1 --json\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
