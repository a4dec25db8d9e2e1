// completion: scripts that make a shell complete commands, flags, and names that a server knows.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
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

// What the words of a command's form stand for that a server, or a file, knows the names of.
std::string NamesIn(absl::string_view form) {
  constexpr std::pair<absl::string_view, const char*> kKinds[] = {
      {"ARTIFACT", "artifacts"}, {"A B", "artifacts"}, {"JOB", "jobs"},
      {"WORKER", "workers"},     {"TOKEN", "tokens"},  {"NAME|local", "contexts"},
      {"DATASET", "datasets"},
  };
  for (const auto& [word, kind] : kKinds) {
    if (absl::StrContains(form, word)) return kind;
  }
  const std::vector<absl::string_view> words = absl::StrSplit(form, absl::ByAnyChar(" |"));
  return std::find(words.begin(), words.end(), "MODEL") != words.end() ? "models" : "";
}

// By "COMMAND VERB", or "COMMAND " of one without verbs.
std::map<std::string, std::string> NamesOfForms() {
  std::map<std::string, std::string> kinds;
  for (const CommandDef* command : Visible()) {
    const bool has_verbs = !VerbsOf(*command).empty();
    for (const absl::string_view form : absl::StrSplit(command->arguments, " | ")) {
      const std::string kind = NamesIn(form);
      const absl::string_view verb = has_verbs ? form.substr(0, form.find(' ')) : "";
      if (!kind.empty()) kinds[absl::StrCat(command->name, " ", verb)] = kind;
    }
  }
  return kinds;
}

// Flags that take a value, whose next word is no argument: "--a|--b|-o".
std::string ValuedFlags() {
  std::set<std::string> names = {"-o"};
  for (const CommandDef* command : Visible()) {
    for (const FlagDef& flag : FlagsOf(*command)) {
      if (*flag.value != '\0') names.insert(absl::StrCat("--", flag.name));
    }
  }
  return absl::StrJoin(names, "|");
}

// The words before the one that is typed: the command, its verb, and which server they name. Read
// off the line, because bash cuts words at colons.
constexpr char kReadLine[] = R"sh(_lwqctl() {
  local word=${COMP_WORDS[COMP_CWORD]} words= verbs= names= command= verb= plain=0
  local line=() ask=() typed=${COMP_LINE:0:COMP_POINT} i
  if [ -n "${ZSH_VERSION-}" ]; then read -rA line <<< "$typed"; else read -ra line <<< "$typed"; fi
  [[ $typed == *[[:space:]] ]] || unset "line[$((${#line[@]} - 1))]"
  for ((i = 1; i < ${#line[@]}; i++)); do
    case ${line[i]} in
      --server=*|--context=*|--data-dir=*|--tls-*=*|--token-file=*) ask+=("${line[i]}") ;;
      --server|--context|--data-dir|--tls-ca|--tls-cert|--tls-key|--token-file)
        ask+=("${line[i]}" "${line[i+1]}"); i=$((i + 1)) ;;
      VALUED_FLAGS) i=$((i + 1)) ;;
      -*) ;;
      *) [ $plain -eq 0 ] && command=${line[i]}
         [ $plain -eq 1 ] && verb=${line[i]}
         plain=$((plain + 1)) ;;
    esac
  done
  case ${COMP_WORDS[COMP_CWORD-1]} in
)sh";

constexpr char kComplete[] = R"sh(  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    return
  elif [ -n "$verbs" ] && [ $plain -eq 1 ]; then
    COMPREPLY=($(compgen -W "$verbs" -- "$word"))
    return
  elif [ -n "$names" ]; then
    COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" complete-names "$names" "${ask[@]}" 2>/dev/null)" -- "$word"))
  fi
  [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$word"))
}
complete -o filenames -F _lwqctl lwqctl
)sh";

std::string CommonFlagNames() {
  std::string names = "--help --version";
  for (const FlagDef& flag : CommonFlags()) absl::StrAppend(&names, " --", flag.name);
  return names;
}

std::string Bash() {
  std::string script = absl::StrReplaceAll(kReadLine, {{"VALUED_FLAGS", ValuedFlags()}});
  absl::StrAppend(&script, ChoiceCases(), "  esac\n  case $command in\n    \"\") words=\"",
                  CommonFlagNames(), "\"; [[ $word == -* ]] || { COMPREPLY=($(compgen -W \"",
                  CommandNames(), "\" -- \"$word\")); return; } ;;\n");
  for (const CommandDef* command : Visible()) {
    absl::StrAppend(&script, "    ", command->name, ") words=\"", FlagNames(*command),
                    "\" verbs=\"", absl::StrJoin(VerbsOf(*command), " "), "\" ;;\n");
  }
  absl::StrAppend(&script, "    help) verbs=\"", CommandNames(), "\" ;;\n  esac\n");
  std::string cases;
  for (const auto& [form, kind] : NamesOfForms()) {
    const bool has_verb = form.back() != ' ';
    absl::StrAppend(&cases, "    \"", form, has_verb ? "\"" : "\"*", ") names=", kind, " ;;\n");
  }
  return absl::StrCat(script, "  case \"$command $verb\" in\n", cases, "  esac\n", kComplete);
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
    for (const auto& [form, kind] : NamesOfForms()) {
      const std::pair<std::string, std::string> words = absl::StrSplit(form, ' ');
      if (words.first != command->name) continue;
      absl::StrAppend(&script, "complete -c lwqctl -n '__fish_seen_subcommand_from ", command->name,
                      words.second.empty() ? "" : "; and __fish_seen_subcommand_from ",
                      words.second, "' -a '(lwqctl complete-names ", kind, " 2>/dev/null)'\n");
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
    .arguments = "bash | zsh | fish",
    .summary = "Prints a completion script for a shell.",
    .examples =
        "  source <(lwqctl completion bash)         # in ~/.bashrc; zsh likewise, in ~/.zshrc\n"
        "  lwqctl completion fish > ~/.config/fish/completions/lwqctl.fish\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
