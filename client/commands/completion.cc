// completion: scripts that make a shell complete commands and flags.
#include <string>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "client/commands/command.h"
#include "client/errors.h"

namespace lwq::client {
namespace {

std::vector<const CommandDef*> Visible() {
  std::vector<const CommandDef*> commands;
  for (const CommandDef* command : AllCommands()) {
    if (!command->hidden) commands.push_back(command);
  }
  return commands;
}

std::string CommandNames() {
  std::string names = "help";
  for (const CommandDef* command : Visible()) absl::StrAppend(&names, " ", command->name);
  return names;
}

std::vector<FlagDef> AllFlags(const CommandDef& command) {
  std::vector<FlagDef> flags(command.flags.begin(), command.flags.end());
  if (command.more_flags != nullptr) {
    for (const FlagDef& flag : command.more_flags()) flags.push_back(flag);
  }
  for (const FlagDef& flag : CommonFlags()) flags.push_back(flag);
  return flags;
}

std::string FlagNames(const CommandDef& command) {
  std::string names = "--help";
  for (const FlagDef& flag : AllFlags(command)) absl::StrAppend(&names, " --", flag.name);
  return names;
}

std::string Bash() {
  std::string script =
      "_lwqctl() {\n  local word=${COMP_WORDS[COMP_CWORD]}\n  if [ \"$COMP_CWORD\" -eq 1 ]; then\n";
  absl::StrAppend(&script, "    COMPREPLY=($(compgen -W \"", CommandNames(),
                  "\" -- \"$word\"))\n    return\n  fi\n  case ${COMP_WORDS[1]} in\n");
  for (const CommandDef* command : Visible()) {
    absl::StrAppend(&script, "    ", command->name, ") words=\"", FlagNames(*command), "\" ;;\n");
  }
  absl::StrAppend(
      &script,
      "    *) words= ;;\n  esac\n  if [[ $word == -* ]]; then\n    COMPREPLY=($(compgen "
      "-W \"$words\" -- \"$word\"))\n  else\n    COMPREPLY=($(compgen -f -- \"$word\"))\n"
      "  fi\n}\ncomplete -o filenames -F _lwqctl lwqctl\n");
  return script;
}

std::string Zsh() { return absl::StrCat("autoload -U +X bashcompinit && bashcompinit\n", Bash()); }

std::string Fish() {
  std::string script;
  for (const CommandDef* command : Visible()) {
    absl::StrAppend(&script, "complete -c lwqctl -n __fish_use_subcommand -a ", command->name,
                    " -d \"", command->summary, "\"\n");
    for (const FlagDef& flag : AllFlags(*command)) {
      absl::StrAppend(&script, "complete -c lwqctl -n '__fish_seen_subcommand_from ", command->name,
                      "' -l ", flag.name, *flag.value == '\0' ? "" : " -r", "\n");
    }
  }
  return script;
}

absl::StatusOr<int> Run(Invocation& invocation) {
  const std::string& shell = invocation.arguments[0];
  if (shell == "bash") {
    *invocation.out << Bash();
  } else if (shell == "zsh") {
    *invocation.out << Zsh();
  } else if (shell == "fish") {
    *invocation.out << Fish();
  } else {
    return InvalidFailure("USAGE", "expected bash, zsh or fish");
  }
  return kExitOk;
}

}  // namespace

extern const CommandDef kCompletionCommand;
constinit const CommandDef kCompletionCommand = {
    .name = "completion",
    .arguments = "bash|zsh|fish",
    .summary = "Prints a completion script for a shell.",
    .examples = "  source <(lwqctl completion bash)\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
