// down: stops the own server and worker.
#include <array>

#include "base/status_macros.h"
#include "client/commands/command.h"
#include "client/embedded.h"
#include "client/errors.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 1> kFlags = {{
    {"force", "", "also while commands use them; unfinished jobs go on at the next start"},
}};

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const std::string data, DataDirectory(invocation.flags.Get("data-dir")));
  LWQ_RETURN_IF_ERROR(StopEmbedded(data, invocation.flags.Has("force")));
  *invocation.out << (invocation.flags.Has("json") ? "{\"stopped\": true}\n" : "stopped\n");
  return kExitOk;
}

}  // namespace

extern const CommandDef kDownCommand;
constinit const CommandDef kDownCommand = {
    .name = "down",
    .arguments = "",
    .summary = "Stops the server and worker that `up` started.",
    .examples = "  lwqctl down\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 0,
    .run = Run,
};

}  // namespace lwq::client
