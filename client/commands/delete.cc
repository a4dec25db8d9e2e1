// delete job|artifact: what has ended and is no longer wanted.
#include <array>

#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"

namespace lwq::client {
namespace {

int Deleted(const Invocation& invocation, const std::string& name) {
  if (invocation.flags.Has("json")) {
    *invocation.out << "{\"deleted\": \"" << name << "\"}\n";
  } else {
    *invocation.out << ShortName(name) << " deleted\n";
  }
  return kExitOk;
}

absl::StatusOr<int> DeleteJob(Invocation& invocation) {
  const std::string name = FullName("jobs", invocation.arguments[1]);
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_RETURN_IF_ERROR(session->client()->DeleteJob(name));
  return Deleted(invocation, name);
}

absl::StatusOr<int> DeleteArtifact(Invocation& invocation) {
  const std::string name = FullName("artifacts", invocation.arguments[1]);
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_RETURN_IF_ERROR(session->client()->DeleteArtifact(name));
  return Deleted(invocation, name);
}

constexpr std::array<Subcommand, 2> kSubcommands = {{
    {"artifact", 1, 1, DeleteArtifact},
    {"job", 1, 1, DeleteJob},
}};

absl::StatusOr<int> Run(Invocation& invocation) { return RunSubcommand(kSubcommands, invocation); }

}  // namespace

extern const CommandDef kDeleteCommand;
constinit const CommandDef kDeleteCommand = {
    .name = "delete",
    .arguments = "job JOB | artifact ARTIFACT",
    .summary = "Deletes an ended job with its artifact, or an artifact alone.",
    .examples = "  lwqctl delete job j-1\n  lwqctl delete artifact j-1\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 2,
    .most_arguments = 2,
    .run = Run,
};

}  // namespace lwq::client
