// workers: who computes.
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"
#include "client/work_text.h"

namespace lwq::client {
namespace {

absl::StatusOr<int> List(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  v1::ListWorkersResponse all;
  v1::ListWorkersRequest request;
  do {
    LWQ_ASSIGN_OR_RETURN(const v1::ListWorkersResponse page,
                         session->client()->ListWorkers(request));
    all.mutable_workers()->MergeFrom(page.workers());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (invocation.flags.Has("json")) return PrintJson(invocation, all);
  std::vector<std::string> headings = {"NAME",  "STATE", "DEVICE", ">TASKS",
                                       ">DONE", ">SEEN", "BUILD"};
  if (IsWide(invocation)) {
    headings.insert(headings.end(), {">MEMORY", ">GOPS/S", "NUMERICS", "NOW", "NOTE"});
  }
  Table table(std::move(headings));
  for (const v1::Worker& worker : all.workers()) {
    const v1::RegisterWorkerRequest& registration = worker.registration();
    std::vector<std::string> cells = {
        ShortName(worker.name()),
        absl::StrCat(v1::Worker::State_Name(worker.state()), worker.cordoned() ? ", cordoned" : ""),
        LogSafe(registration.device_description()),
        absl::StrCat(worker.tasks_size()),
        absl::StrCat(worker.tasks_done()),
        AgeText(worker.seen_time()),
        LogSafe(registration.build())};
    if (IsWide(invocation)) {
      cells.push_back(registration.memory_bytes() > 0 ? FormatBytes(registration.memory_bytes())
                                                      : "-");
      cells.push_back(absl::StrFormat("%.1f", registration.operations_per_second() / 1e9));
      cells.push_back(LogSafe(registration.numerics_class()));
      cells.push_back(worker.running_size() > 0 ? RunningText(worker.running(0)) : "-");
      cells.push_back(LogSafe(worker.cordon_reason()));
    }
    table.AddRow(std::move(cells));
  }
  *invocation.out << table.Text();
  return kExitOk;
}

absl::StatusOr<int> Cordon(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  v1::CordonWorkerRequest request;
  request.set_name(FullName("workers", invocation.arguments[1]));
  request.set_cordoned(invocation.arguments[0] == "cordon");
  LWQ_ASSIGN_OR_RETURN(const v1::Worker worker,
                       session->client()->CordonWorker(std::move(request)));
  if (invocation.flags.Has("json")) return PrintJson(invocation, worker);
  *invocation.out << ShortName(worker.name()) << (worker.cordoned() ? " cordoned\n" : " open\n");
  return kExitOk;
}

constexpr std::array<Subcommand, 3> kSubcommands = {{
    {"cordon", 1, 1, Cordon},
    {"list", 0, 0, List},
    {"uncordon", 1, 1, Cordon},
}};

absl::StatusOr<int> Run(Invocation& invocation) {
  if (invocation.arguments.empty()) return List(invocation);
  return RunSubcommand(kSubcommands, invocation);
}

}  // namespace

extern const CommandDef kWorkersCommand;
constinit const CommandDef kWorkersCommand = {
    .name = "workers",
    .arguments = "[list | cordon WORKER | uncordon WORKER]",
    .summary = "Lists workers; a cordoned one gets no new tasks.",
    .examples = "  lwqctl workers\n  lwqctl workers cordon w1\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 2,
    .run = Run,
};

}  // namespace lwq::client
