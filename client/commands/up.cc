// up: the own server and worker, kept running.
#include <array>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/commands/command.h"
#include "client/errors.h"
#include "client/results.h"
#include "client/session.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 3> kFlags = {{
    {"device", "NAME", "of the own worker: cpu (default) or cuda:N"},
    {"memory", "SIZE", "ceiling of the worker's own memory, such as 2GiB"},
    {"threads", "N", "threads of the worker (default: all processors)"},
}};

absl::StatusOr<int> Run(Invocation& invocation) {
  Flags flags = invocation.flags;
  flags.Set("server", "");  // the own pair, whatever $LWQ_SERVER says
  LWQ_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::OpenEmbedded(flags));
  LWQ_RETURN_IF_ERROR(session->embedded()->Keep());
  LWQ_ASSIGN_OR_RETURN(const v1::ServerInfo info, session->client()->GetServerInfo());
  if (invocation.flags.Has("json")) {
    LWQ_ASSIGN_OR_RETURN(const std::string json, ToJson(info));
    *invocation.out << json << "\n";
    return kExitOk;
  }
  const EmbeddedPaths& paths = session->embedded()->paths();
  *invocation.out << (session->embedded()->started_here() ? "started" : "already running") << "\n"
                  << "server  " << paths.address << " (process " << info.server_pid() << ")\n"
                  << "data    " << paths.data << "\n"
                  << "logs    " << paths.server_log << "\n        " << paths.worker_log << "\n";
  return kExitOk;
}

}  // namespace

extern const CommandDef kUpCommand;
constinit const CommandDef kUpCommand = {
    .name = "up",
    .arguments = "",
    .summary = "Starts the own server and worker, or says that they run.",
    .examples =
        "  lwqctl up\n  lwqctl up --data-dir /data/lwq --threads 8\n  lwqctl up --device cuda:0\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 0,
    .run = Run,
};

}  // namespace lwq::client
