// worker cordon|uncordon|drain: takes a worker out of service, and back.
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/all_pages.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"

namespace lwq::client {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(500);

constexpr std::array<FlagDef, 1> kFlags = {{
    {"wait", "", "of drain: until the worker has no task (--timeout ends the wait, not the drain)"},
}};

absl::StatusOr<v1::Worker> Send(Session& session, const std::string& name, bool cordoned) {
  v1::CordonWorkerRequest request;
  request.set_name(name);
  request.set_cordoned(cordoned);
  return session.client()->CordonWorker(std::move(request));
}

absl::StatusOr<v1::Worker> FindWorker(Client* client, const std::string& name) {
  LWQ_ASSIGN_OR_RETURN(const v1::ListWorkersResponse all,
                       AllPages(client, &Client::ListWorkers, v1::ListWorkersRequest()));
  for (const v1::Worker& worker : all.workers()) {
    if (worker.name() == name) return worker;
  }
  return Failure(reasons::kNotFound, absl::StrCat("no worker ", name));
}

// Of one that went in the middle nobody waits for tasks any more: they go to others.
absl::StatusOr<v1::Worker> WaitUntilIdle(Session& session, v1::Worker worker) {
  while (worker.tasks_size() > 0) {
    LWQ_RETURN_IF_ERROR(session.MayGoOn());
    absl::SleepFor(kPoll);
    LWQ_ASSIGN_OR_RETURN(worker, FindWorker(session.client(), worker.name()));
    if (!worker.cordoned()) {
      return Failure(reasons::kStateConflict,
                     absl::StrCat("worker ", ShortName(worker.name()),
                                  " was uncordoned by somebody: it gets tasks again"));
    }
  }
  return worker;
}

int Print(const Invocation& invocation, const v1::Worker& worker) {
  const int tasks = worker.tasks_size();
  *invocation.out << ShortName(worker.name());
  if (!worker.cordoned()) {
    *invocation.out << " open\n";
  } else if (tasks == 0) {
    *invocation.out << " cordoned, has no task\n";
  } else {
    *invocation.out << " cordoned, finishes " << tasks << (tasks == 1 ? " task\n" : " tasks\n");
  }
  return kExitOk;
}

absl::StatusOr<int> Change(Invocation& invocation) {
  const std::string& verb = invocation.arguments[0];
  const Flags& flags = invocation.flags;
  if (verb != "drain" && flags.Has("wait")) {
    return Failure(reasons::kUsage, "--wait is of `lwqctl worker drain`");
  }
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(flags));
  const std::string name = FullName("workers", invocation.arguments[1]);
  LWQ_ASSIGN_OR_RETURN(v1::Worker worker, Send(*session, name, verb != "uncordon"));
  if (flags.Has("wait")) {
    LWQ_ASSIGN_OR_RETURN(worker, WaitUntilIdle(*session, std::move(worker)));
  }
  if (flags.Has("json")) return PrintJson(invocation, worker);
  return Print(invocation, worker);
}

constexpr std::array<Subcommand, 3> kSubcommands = {{
    {"cordon", 1, 1, Change},
    {"drain", 1, 1, Change},
    {"uncordon", 1, 1, Change},
}};

absl::StatusOr<int> Run(Invocation& invocation) { return RunSubcommand(kSubcommands, invocation); }

constexpr std::array<Advice, 1> kAdvice = {{{"NOT_FOUND", "lwqctl workers shows which there are"}}};

}  // namespace

extern const CommandDef kWorkerCommand;
constinit const CommandDef kWorkerCommand = {
    .name = "worker",
    .arguments = "drain WORKER | cordon WORKER | uncordon WORKER",
    .summary = "Takes a worker out of service: no new tasks, and what runs is finished.",
    .examples =
        "  lwqctl worker drain w1 --wait          # what it runs is finished\n"
        "  lwqctl worker uncordon w1\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 2,
    .most_arguments = 2,
    .run = Run,
    .advice = kAdvice,
};

}  // namespace lwq::client
