// version: of this program.
#include "client/commands/command.h"
#include "client/errors.h"

namespace lwq::client {
namespace {

absl::StatusOr<int> Run(Invocation& invocation) {
  *invocation.out << (invocation.flags.Has("json") ? "{\"version\": \"" LWQ_VERSION "\"}\n"
                                                   : "lwqctl " LWQ_VERSION "\n");
  return kExitOk;
}

}  // namespace

extern const CommandDef kVersionCommand;
constinit const CommandDef kVersionCommand = {
    .name = "version",
    .arguments = "",
    .summary = "Prints the version of lwqctl.",
    .examples = "",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 0,
    .run = Run,
};

}  // namespace lwq::client
