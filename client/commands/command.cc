#include "client/commands/command.h"

#include <array>
#include <exception>
#include <sstream>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/settings.h"
#include "base/status_macros.h"
#include "client/contexts.h"
#include "client/errors.h"
#include "client/output_format.h"
#include "client/suggest.h"

namespace lwq::client {

#define LWQ_COMMAND(name) extern const CommandDef name;
#include "client/commands/commands.def"
#undef LWQ_COMMAND

namespace {

constexpr std::array kCommands = {
#define LWQ_COMMAND(name) &name,
#include "client/commands/commands.def"
#undef LWQ_COMMAND
};

constexpr std::array<FlagDef, 10> kCommonFlags = {{
    {"context", "NAME", "a server that `lwqctl context add` keeps (default $LWQ_CONTEXT)"},
    {"data-dir", "DIR", "where the own server keeps its state (default ~/.local/state/lwq)"},
    {"json", "", "print the result as JSON on stdout, and errors as JSON on stderr"},
    {"output", "FORM", "-o json, yaml, wide (more columns) or name (names alone)",
     "json yaml wide name"},
    {"server", "ADDRESS",
     "unix:/path or host:port; a list of them finds the leader (default $LWQ_SERVER)"},
    {"timeout", "SECONDS", "give up after so long (default: never)"},
    {"tls-ca", "FILE", "authority of the named server's certificate (default $LWQ_TLS_CA)"},
    {"tls-cert", "FILE", "own certificate, where the server asks (default $LWQ_TLS_CERT)"},
    {"tls-key", "FILE", "its key (default $LWQ_TLS_KEY)"},
    {"token-file", "FILE", "token to show the named server (default $LWQ_TOKEN_FILE)"},
}};

constexpr int64_t kMostSettingsBytes = 1 << 20;

absl::Span<const FlagDef> SharedFlags(const CommandDef& command) {
  return command.more_flags == nullptr ? absl::Span<const FlagDef>() : command.more_flags();
}

// Whether errors are to be JSON: where the result would be printed as such.
bool IsJson(absl::string_view form, bool json) {
  return form == "json" || (json && form != "yaml" && form != "name");
}

bool IsJson(const Flags& flags) { return IsJson(flags.Get("output"), flags.Has("json")); }

// The same of a line that could not be read as flags.
bool AsksForJson(absl::Span<const std::string> words) {
  bool json =
      absl::c_linear_search(std::vector<std::string>{"1", "on", "true", "yes"},
                            absl::AsciiStrToLower(EnvironmentVariable("LWQ_JSON").value_or("")));
  std::string form = EnvironmentVariable("LWQ_OUTPUT").value_or("");
  for (size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
    absl::string_view word = words[i];
    if (word == "--json") json = true;
    if ((word == "-o" || word == "--output") && i + 1 < words.size()) form = words[i + 1];
    if (absl::ConsumePrefix(&word, "--output=") ||
        (!absl::StartsWith(word, "--") && absl::ConsumePrefix(&word, "-o") && !word.empty())) {
      form = std::string(absl::StripPrefix(word, "="));
    }
  }
  return IsJson(form, json);
}

int PrintError(std::ostream* err, absl::string_view what, const absl::Status& status,
               bool as_json = false, absl::string_view advice = "") {
  *err << (as_json ? ErrorJson(what, status, advice) : ErrorText(what, status, advice))
       << std::flush;
  return ExitCodeOf(status);
}

// What a command is told about the form of its output, and what is made of that afterwards.
absl::StatusOr<std::string> TakeForm(Flags& flags) {
  LWQ_ASSIGN_OR_RETURN(const std::string form,
                       flags.GetChoice("output", {"json", "yaml", "wide", "name"}));
  if (form == "json" || form == "yaml" || form == "name") flags.Set("json", "true");
  return form;
}

absl::StatusOr<std::string> InForm(const std::string& form, const std::string& json) {
  return form == "yaml" ? JsonToYaml(json) : NamesInJson(json);
}

// The command's result, in another form than it can print itself where one was asked for.
absl::StatusOr<int> RunInForm(const CommandDef& command, Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const std::string form, TakeForm(invocation.flags));
  if (form != "yaml" && form != "name") return command.run(invocation);
  if (invocation.flags.Has("watch")) {
    return Failure(reasons::kUsage, "--watch prints tables, and JSON with -o json");
  }
  std::ostream* const out = invocation.out;
  std::ostringstream json;
  invocation.out = &json;
  LWQ_ASSIGN_OR_RETURN(const int code, command.run(invocation));
  LWQ_ASSIGN_OR_RETURN(const std::string text, InForm(form, json.str()));
  *out << text;
  return code;
}

// The line with what the environment and the settings file add to it.
absl::StatusOr<std::vector<std::string>> Complete(const CommandDef& command,
                                                  absl::Span<const std::string> words) {
  SettingsSource source{.prefix = "LWQ_", .environment = EnvironmentVariable};
  const std::string directory = ConfigDirectory();
  if (!directory.empty() && FileExists(JoinPath(directory, "config.toml"))) {
    source.file_name = JoinPath(directory, "config.toml");
    LWQ_ASSIGN_OR_RETURN(source.file, ReadFile(source.file_name, kMostSettingsBytes));
  }
  source.section = command.name;
  std::vector<SettableFlag> flags;
  for (const FlagDef& flag : FlagsOf(command)) {
    const absl::string_view name = flag.name;
    // Which server it is has rules of its own (session.h).
    const bool names_server = name == "server" || name == "context" || name == "tls-ca" ||
                              name == "tls-cert" || name == "tls-key" || name == "token-file";
    if (!names_server) flags.push_back({flag.name, *flag.value == '\0', false});
  }
  for (const CommandDef* other : kCommands) {
    if (!other->hidden) source.sections.push_back(other->name);
    for (const FlagDef& flag : FlagsOf(*other)) source.other_flags.push_back(flag.name);
  }
  return WithSettings({words.begin(), words.end()}, flags, source);
}

int RunCommand(const CommandDef& command, absl::Span<const std::string> words, std::ostream* out,
               std::ostream* err) {
  const std::array<absl::Span<const FlagDef>, 3> groups = {command.flags, SharedFlags(command),
                                                           CommonFlags()};
  absl::StatusOr<ParsedLine> line = ParsedLine();
  const absl::StatusOr<std::vector<std::string>> completed =
      command.takes_settings ? Complete(command, words)
                             : std::vector<std::string>(words.begin(), words.end());
  line = completed.ok() ? ParseLine(groups, *completed) : completed.status();
  if (line.ok() && line->help) {
    *out << CommandHelp(command) << std::flush;
    return kExitOk;
  }
  const std::string what = absl::StrCat("cannot run `lwqctl ", command.name, "`");
  const std::string help = absl::StrCat("see: lwqctl help ", command.name);
  if (!line.ok()) return PrintError(err, what, line.status(), AsksForJson(words), help);
  const int count = static_cast<int>(line->arguments.size());
  if (count < command.fewest_arguments || count > command.most_arguments) {
    return PrintError(err, what,
                      Failure(reasons::kUsage,
                              absl::StrCat("usage: lwqctl ", command.name, " ", command.arguments,
                                           " [flags]; got ", count, " plain arguments")),
                      IsJson(line->flags), help);
  }
  const bool json_errors = IsJson(line->flags);
  Invocation invocation{std::move(line->flags), std::move(line->arguments), out, err};
  absl::StatusOr<int> code = kExitOk;
  try {
    code = RunInForm(command, invocation);
  } catch (const std::exception& error) {
    code = absl::InternalError(error.what());
  }
  *out << std::flush;
  if (code.ok()) return *code;
  std::string advice = HasReason(code.status(), reasons::kUsage) ? help : "";
  for (const Advice& own : command.advice) {
    if (ReasonOf(code.status()) == own.reason) advice = own.text;
  }
  return PrintError(err, absl::StrCat("`", command.name, "` did not succeed"), code.status(),
                    json_errors, advice);
}

}  // namespace

std::vector<FlagDef> FlagsOf(const CommandDef& command) {
  std::vector<FlagDef> flags(command.flags.begin(), command.flags.end());
  const absl::Span<const FlagDef> shared = SharedFlags(command);
  flags.insert(flags.end(), shared.begin(), shared.end());
  flags.insert(flags.end(), kCommonFlags.begin(), kCommonFlags.end());
  return flags;
}

absl::Span<const CommandDef* const> AllCommands() { return kCommands; }
absl::Span<const FlagDef> CommonFlags() { return kCommonFlags; }

const CommandDef* FindCommand(absl::string_view name) {
  for (const CommandDef* command : kCommands) {
    if (command->name == name) return command;
  }
  return nullptr;
}

std::string CommandHelp(const CommandDef& command) {
  std::string text =
      absl::StrCat("lwqctl ", command.name, " ", command.arguments, "\n\n", command.summary, "\n");
  if (!command.flags.empty() || !SharedFlags(command).empty()) {
    absl::StrAppend(&text, "\nFlags:\n", FlagsHelp(command.flags), FlagsHelp(SharedFlags(command)));
  }
  absl::StrAppend(&text, "\nFlags of every command:\n", FlagsHelp(CommonFlags()));
  if (*command.examples != '\0') absl::StrAppend(&text, "\nExamples:\n", command.examples);
  return text;
}

std::string ProgramHelp() {
  std::string text =
      "lwqctl: makes language models smaller within a budget of bytes\n\nCommands:\n";
  for (const CommandDef* command : kCommands) {
    if (!command->hidden) {
      absl::StrAppendFormat(&text, "  %-12s %s\n", command->name, command->summary);
    }
  }
  absl::StrAppend(
      &text,
      "\nlwqctl help COMMAND tells more. Each flag may also be set by a variable (LWQ_DATA_DIR "
      "for\n"
      "--data-dir) or in ~/.config/lwq/config.toml; the command line wins over variables, and "
      "they\n"
      "over the file. Exit codes: 0 done, 1 job failed, 2 usage, 3 not "
      "found,\n4 denied, 5 unreachable, 6 timeout, 7 quota, 8 conflict, 9 invalid input, "
      "10 corrupt data,\n130 interrupted.\n");
  return text;
}

namespace {

// How many words a flag of every command takes that stands at the beginning of `words`; 0: none
// does.
size_t WordsOfFlag(absl::Span<const std::string> words) {
  absl::string_view word = words[0];
  if (word == "-o") return 2;
  if (!absl::ConsumePrefix(&word, "--")) return 0;
  const size_t equals = word.find('=');
  for (const FlagDef& flag : kCommonFlags) {
    if (word.substr(0, equals) != flag.name) continue;
    return *flag.value == '\0' || equals != absl::string_view::npos ? 1 : 2;
  }
  return 0;
}

bool IsHelp(absl::string_view word) { return word == "help" || word == "--help" || word == "-h"; }

// `--server A jobs --json` as `jobs --server A --json`.
std::vector<std::string> CommandFirst(absl::Span<const std::string> words) {
  size_t before = 0;
  while (before < words.size()) {
    const size_t count = WordsOfFlag(words.subspan(before));
    if (count == 0) break;
    before += count;
  }
  if (before >= words.size()) return {words.begin(), words.end()};
  if (IsHelp(words[before])) return {words.begin() + before, words.end()};
  std::vector<std::string> ordered = {words[before]};
  ordered.insert(ordered.end(), words.begin(), words.begin() + before);
  ordered.insert(ordered.end(), words.begin() + before + 1, words.end());
  return ordered;
}

int RunWords(absl::Span<const std::string> words, std::ostream* out, std::ostream* err) {
  if (words.empty()) {
    *err << ProgramHelp() << std::flush;
    return kExitUsage;
  }
  const auto unknown = [&](const std::string& name) {
    std::vector<std::string> names;
    for (const CommandDef* command : kCommands) {
      if (!command->hidden) names.push_back(command->name);
    }
    const std::string meant = Nearest(name, names);
    return PrintError(
        err, absl::StrCat("there is no command \"", LogSafe(name), "\""),
        Failure(reasons::kUsage, meant.empty() ? "the first word is the command, behind none but "
                                                 "flags that every command takes"
                                               : absl::StrCat("did you mean \"", meant, "\"?")),
        AsksForJson(words), "see: lwqctl help");
  };
  if (WordsOfFlag(words) > 0) {
    return PrintError(err, "no command was given",
                      Failure(reasons::kUsage, absl::StrCat(LogSafe(words[0]),
                                                            " stands behind the command, or "
                                                            "before one")),
                      AsksForJson(words), "see: lwqctl help");
  }
  if (IsHelp(words[0])) {
    const bool of_one = words.size() > 1 && !absl::StartsWith(words[1], "-");
    const CommandDef* command = of_one ? FindCommand(words[1]) : nullptr;
    if (of_one && command == nullptr) return unknown(words[1]);
    *out << (command != nullptr ? CommandHelp(*command) : ProgramHelp());
    return kExitOk;
  }
  const std::string name = words[0] == "--version" ? "version" : words[0];
  const CommandDef* command = FindCommand(name);
  if (command == nullptr) return unknown(name);
  return RunCommand(*command, words.subspan(1), out, err);
}

}  // namespace

int RunProgram(absl::Span<const std::string> words, std::ostream* out, std::ostream* err) {
  const int code = RunWords(CommandFirst(words), out, err);
  out->flush();
  if (out->good() || code != kExitOk) return code;
  // A script that keeps the answer in a file has to hear that there is none.
  return PrintError(err, "writing the answer failed",
                    Failure(reasons::kStorageFull, "standard output took no more; is a disk full?"),
                    AsksForJson(words));
}

}  // namespace lwq::client
