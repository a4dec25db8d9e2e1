// retry: runs a failed or cancelled job again; finished tasks are kept.
#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/progress.h"
#include "client/session.h"

namespace lwq::client {
namespace {

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(const v1::Job job,
                       session->client()->RetryJob(FullName("jobs", invocation.arguments[0])));
  if (invocation.flags.Has("json")) return PrintJson(invocation, job);
  *invocation.out << ShortName(job.name()) << " " << StateName(job.state()) << "\n";
  return 0;
}

}  // namespace

extern const CommandDef kRetryCommand;
constinit const CommandDef kRetryCommand = {
    .name = "retry",
    .arguments = "JOB",
    .summary = "Runs a failed or cancelled job again; finished tasks are kept.",
    .examples = "  lwqctl retry j-1\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
