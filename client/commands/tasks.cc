// tasks: the pieces of a job.
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"

namespace lwq::client {
namespace {

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  v1::ListTasksResponse all;
  v1::ListTasksRequest request;
  request.set_job(FullName("jobs", invocation.arguments[0]));
  do {
    LWQ_ASSIGN_OR_RETURN(const v1::ListTasksResponse page, session->client()->ListTasks(request));
    all.mutable_tasks()->MergeFrom(page.tasks());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (invocation.flags.Has("json")) return PrintJson(invocation, all);
  Table table({"TASK", "KIND", ">LAYER", "STATE", ">TRIES", "WORKER", ">TIME", "NOTE"});
  for (const v1::TaskStatus& task : all.tasks()) {
    const std::string layer =
        task.layer() == -2 ? "-" : (task.layer() == -1 ? "head" : absl::StrCat(task.layer()));
    table.AddRow({LogSafe(task.task()).substr(0, 12), LogSafe(task.kind()), layer,
                  absl::StrCat(LogSafe(task.state()), task.cached() ? ", cached" : ""),
                  absl::StrCat(task.attempt()), LogSafe(task.worker()),
                  FormatSeconds(task.seconds()), LogSafe(task.detail())});
  }
  *invocation.out << table.Text();
  return kExitOk;
}

}  // namespace

extern const CommandDef kTasksCommand;
constinit const CommandDef kTasksCommand = {
    .name = "tasks",
    .arguments = "JOB",
    .summary = "Lists the pieces of a job and how they stand.",
    .examples = "  lwqctl tasks j-1\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
