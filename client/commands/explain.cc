// explain: why a job waits or failed, and what next.
#include "client/explain.h"

#include "base/status_macros.h"
#include "client/commands/job_argument.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"

namespace lwq::client {
namespace {

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(const std::string name,
                       JobArgument(session->client(), invocation.arguments[0]));
  LWQ_ASSIGN_OR_RETURN(const v1::Job job, session->client()->GetJob(name));
  LWQ_ASSIGN_OR_RETURN(const v1::ListTasksResponse tasks, AllTasks(session->client(), name));
  if (invocation.flags.Has("json")) return PrintJson(invocation, tasks);
  *invocation.out << ExplainJob(job, {tasks.tasks().begin(), tasks.tasks().end()});
  return kExitOk;
}

}  // namespace

extern const CommandDef kExplainCommand;
constinit const CommandDef kExplainCommand = {
    .name = "explain",
    .arguments = "JOB",
    .summary = "Says why a job waits or failed: which tasks, on which workers, what next.",
    .examples = "  lwqctl explain j-1\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
