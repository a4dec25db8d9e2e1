// completion: scripts that make a shell complete commands and flags.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/reasons.h"
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

std::string FlagNames(const CommandDef& command) {
  std::string names = "--help";
  for (const FlagDef& flag : FlagsOf(command)) absl::StrAppend(&names, " --", flag.name);
  return names;
}

// The first words that a command with verbs takes: "add NAME | list" has "add list".
std::vector<std::string> VerbsOf(const CommandDef& command) {
  std::vector<std::string> verbs;
  for (absl::string_view form : absl::StrSplit(command.arguments, " | ")) {
    absl::ConsumePrefix(&form, "[");
    const std::string verb(form.substr(0, form.find_first_of(" ]")));
    const bool plain = !verb.empty() && std::all_of(verb.begin(), verb.end(), [](unsigned char c) {
      return absl::ascii_islower(c);
    });
    if (plain) verbs.push_back(verb);
  }
  return verbs;
}

// Cases of what stands behind a flag that has choices.
std::string ChoiceCases() {
  std::map<std::string, std::string> choices;
  for (const CommandDef* command : Visible()) {
    for (const FlagDef& flag : FlagsOf(*command)) {
      if (*flag.choices != '\0') choices[flag.name] = flag.choices;
    }
  }
  std::string cases;
  for (const auto& [flag, values] : choices) {
    absl::StrAppend(&cases, "    --", flag, flag == "output" ? "|-o" : "",
                    ") COMPREPLY=($(compgen -W \"", values, "\" -- \"$word\")); return ;;\n");
  }
  return cases;
}

std::string Bash() {
  std::string script =
      "_lwqctl() {\n  local word=${COMP_WORDS[COMP_CWORD]} words= verbs=\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n";
  absl::StrAppend(&script, "    COMPREPLY=($(compgen -W \"", CommandNames(),
                  "\" -- \"$word\"))\n    return\n  fi\n  case ${COMP_WORDS[COMP_CWORD-1]} in\n",
                  ChoiceCases(), "  esac\n  case ${COMP_WORDS[1]} in\n");
  for (const CommandDef* command : Visible()) {
    absl::StrAppend(&script, "    ", command->name, ") words=\"", FlagNames(*command),
                    "\" verbs=\"", absl::StrJoin(VerbsOf(*command), " "), "\" ;;\n");
  }
  absl::StrAppend(&script, "    help) verbs=\"", CommandNames(), "\" ;;\n  esac\n");
  absl::StrAppend(
      &script,
      "  if [[ $word == -* ]]; then\n    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
      "  elif [ \"$COMP_CWORD\" -eq 2 ] && [ -n \"$verbs\" ]; then\n"
      "    COMPREPLY=($(compgen -W \"$verbs\" -- \"$word\"))\n"
      "  else\n    COMPREPLY=($(compgen -f -- \"$word\"))\n"
      "  fi\n}\ncomplete -o filenames -F _lwqctl lwqctl\n");
  return script;
}

std::string Zsh() { return absl::StrCat("autoload -U +X bashcompinit && bashcompinit\n", Bash()); }

std::string Fish() {
  std::string script;
  for (const CommandDef* command : Visible()) {
    absl::StrAppend(&script, "complete -c lwqctl -n __fish_use_subcommand -a ", command->name,
                    " -d \"", command->summary, "\"\n");
    for (const FlagDef& flag : FlagsOf(*command)) {
      absl::StrAppend(&script, "complete -c lwqctl -n '__fish_seen_subcommand_from ", command->name,
                      "' -l ", flag.name, *flag.value == '\0' ? "" : " -r");
      if (*flag.choices != '\0') absl::StrAppend(&script, " -f -a \"", flag.choices, "\"");
      script += "\n";
    }
    if (const std::vector<std::string> verbs = VerbsOf(*command); !verbs.empty()) {
      absl::StrAppend(&script, "complete -c lwqctl -f -n '__fish_seen_subcommand_from ",
                      command->name, "' -a \"", absl::StrJoin(verbs, " "), "\"\n");
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
    return Failure(reasons::kUsage, "expected bash, zsh or fish");
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
