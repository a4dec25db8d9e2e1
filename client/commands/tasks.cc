// tasks: the pieces of a job.
#include <array>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/commands/job_argument.h"
#include "client/commands/output.h"
#include "client/commands/print_or_watch.h"
#include "client/errors.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"
#include "records/canonical.h"

namespace lwq::client {
namespace {

// How often it was tried, the present one included: what counts against it are failures and losses.
std::string TriesText(const v1::TaskStatus& task) {
  const bool tried = task.state() == "LEASED" || (task.state() == "DONE" && !task.cached());
  return absl::StrCat(task.attempt() + task.lost() + (tried ? 1 : 0));
}

constexpr std::array<FlagDef, 1> kFlags = {{kWatchFlag}};

absl::StatusOr<std::string> TableText(const Invocation& invocation,
                                      const v1::ListTasksResponse& all) {
  if (invocation.flags.Has("json")) return JsonText(all);
  Table table({"TASK", "KIND", ">LAYER", "STATE", ">TRIES", "WORKER", ">TIME", "NOTE"});
  for (const v1::TaskStatus& task : all.tasks()) {
    const std::string layer = task.layer() == -2   ? "-"
                              : task.layer() == -1 ? "head"
                              : task.layer() == -3 ? "embedding"
                                                   : absl::StrCat(task.layer());
    const bool runs = task.state() == "LEASED";
    const std::string name = LogSafe(task.task());
    table.AddRow({IsWide(invocation) ? name : name.substr(0, 12), LogSafe(task.kind()), layer,
                  absl::StrCat(LogSafe(task.state()), task.cached() ? ", cached" : ""),
                  TriesText(task), LogSafe(task.worker()),
                  FormatSeconds(runs ? task.running_seconds() : task.seconds()),
                  LogSafe(runs && task.detail().empty() ? task.current() : task.detail())});
  }
  return table.Text();
}

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(const std::string job,
                       JobArgument(session->client(), invocation.arguments[0]));
  return PrintOrWatch(invocation, session.get(), [&]() -> absl::StatusOr<Shown> {
    LWQ_ASSIGN_OR_RETURN(v1::ListTasksResponse all, AllTasks(session->client(), job));
    LWQ_ASSIGN_OR_RETURN(std::string text, TableText(invocation, all));
    for (v1::TaskStatus& task : *all.mutable_tasks()) ClearTimes(&task);
    return Shown{std::move(text), CanonicalBytes(all)};
  });
}

}  // namespace

extern const CommandDef kTasksCommand;
constinit const CommandDef kTasksCommand = {
    .name = "tasks",
    .arguments = "JOB",
    .summary = "Lists the pieces of a job and how they stand.",
    .examples = "  lwqctl tasks j-1\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
