// workers: who computes.
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/all_pages.h"
#include "client/commands/output.h"
#include "client/commands/print_or_watch.h"
#include "client/errors.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"
#include "client/work_text.h"
#include "records/canonical.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 1> kFlags = {{kWatchFlag}};

absl::StatusOr<v1::ListWorkersResponse> List(Client* client) {
  return AllPages(client, &Client::ListWorkers, v1::ListWorkersRequest());
}

absl::StatusOr<std::string> TableText(const Invocation& invocation,
                                      const v1::ListWorkersResponse& all) {
  if (invocation.flags.Has("json")) return JsonText(all);
  std::vector<std::string> headings = {"NAME",  "STATE", "DEVICE", ">TASKS",
                                       ">DONE", ">SEEN", "BUILD"};
  if (IsWide(invocation)) {
    headings.insert(headings.end(), {">MEMORY", ">GOPS/S", "NUMERICS", "NOW", "NOTE"});
  }
  Table table(std::move(headings));
  for (const v1::Worker& worker : all.workers()) {
    const v1::RegisterWorkerRequest& registration = worker.registration();
    std::vector<std::string> cells = {ShortName(worker.name()),
                                      WorkerStateText(worker),
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
  return table.Text();
}

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  return PrintOrWatch(invocation, session.get(), [&]() -> absl::StatusOr<Shown> {
    LWQ_ASSIGN_OR_RETURN(v1::ListWorkersResponse all, List(session->client()));
    LWQ_ASSIGN_OR_RETURN(std::string text, TableText(invocation, all));
    for (v1::Worker& worker : *all.mutable_workers()) ClearTimes(&worker);
    return Shown{std::move(text), CanonicalBytes(all)};
  });
}

}  // namespace

extern const CommandDef kWorkersCommand;
constinit const CommandDef kWorkersCommand = {
    .name = "workers",
    .arguments = "",
    .summary = "Lists workers, and what each does.",
    .examples = "  lwqctl workers\n  lwqctl workers -o wide\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 0,
    .run = Run,
};

}  // namespace lwq::client
