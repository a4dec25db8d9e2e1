// supervise: the process behind `up` and `quantize` that keeps the own server and worker running.
// Started by lwqctl itself; not for people.
#include <array>

#include "base/status_macros.h"
#include "client/commands/command.h"
#include "client/embedded.h"
#include "client/errors.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 3> kFlags = {{
    {"device", "NAME", "of the worker"},
    {"memory", "BYTES", "of the worker"},
    {"threads", "N", "of the worker"},
}};

absl::StatusOr<int> Run(Invocation& invocation) {
  const Flags& flags = invocation.flags;
  LWQ_ASSIGN_OR_RETURN(const std::string data, DataDirectory(flags.Get("data-dir")));
  LWQ_RETURN_IF_ERROR(RunSupervisor(data, {.device = flags.Get("device"),
                                           .threads = flags.Get("threads"),
                                           .memory_bytes = flags.Get("memory")}));
  return kExitOk;
}

}  // namespace

extern const CommandDef kSuperviseCommand;
constinit const CommandDef kSuperviseCommand = {
    .name = "supervise",
    .arguments = "",
    .summary = "Keeps the own server and worker running; started by other commands.",
    .examples = "",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 0,
    .run = Run,
    .hidden = true,
    .takes_settings = false,
};

}  // namespace lwq::client
