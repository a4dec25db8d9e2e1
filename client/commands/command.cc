#include "client/commands/command.h"

#include <array>
#include <exception>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/failure.h"
#include "base/log.h"
#include "client/errors.h"

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

constexpr std::array<FlagDef, 7> kCommonFlags = {{
    {"data-dir", "DIR", "where the own server keeps its state (default ~/.local/state/lwq)"},
    {"json", "", "print the result as JSON on stdout"},
    {"server", "ADDRESS",
     "unix:/path or host:port; a list of them finds the leader (default $LWQ_SERVER)"},
    {"timeout", "SECONDS", "give up after so long (default: never)"},
    {"tls-ca", "FILE", "authority of the named server's certificate (default $LWQ_TLS_CA)"},
    {"tls-cert", "FILE", "own certificate, where the server asks (default $LWQ_TLS_CERT)"},
    {"tls-key", "FILE", "its key (default $LWQ_TLS_KEY)"},
}};

absl::Span<const FlagDef> SharedFlags(const CommandDef& command) {
  return command.more_flags == nullptr ? absl::Span<const FlagDef>() : command.more_flags();
}

int PrintError(std::ostream* err, absl::string_view what, const absl::Status& status) {
  *err << ErrorText(what, status) << std::flush;
  return ExitCodeOf(status);
}

int RunCommand(const CommandDef& command, absl::Span<const std::string> words, std::ostream* out,
               std::ostream* err) {
  const std::array<absl::Span<const FlagDef>, 3> groups = {command.flags, SharedFlags(command),
                                                           CommonFlags()};
  absl::StatusOr<ParsedLine> line = ParseLine(groups, words);
  if (line.ok() && line->help) {
    *out << CommandHelp(command) << std::flush;
    return kExitOk;
  }
  const std::string what = absl::StrCat("cannot run `lwqctl ", command.name, "`");
  if (!line.ok()) return PrintError(err, what, line.status());
  const int count = static_cast<int>(line->arguments.size());
  if (count < command.fewest_arguments || count > command.most_arguments) {
    return PrintError(
        err, what,
        InvalidFailure("USAGE", absl::StrCat("usage: lwqctl ", command.name, " ", command.arguments,
                                             " [flags]; got ", count, " plain arguments")));
  }
  Invocation invocation{std::move(line->flags), std::move(line->arguments), out, err};
  absl::StatusOr<int> code = kExitOk;
  try {
    code = command.run(invocation);
  } catch (const std::exception& error) {
    code = absl::InternalError(error.what());
  }
  *out << std::flush;
  if (code.ok()) return *code;
  return PrintError(err, absl::StrCat("`", command.name, "` did not succeed"), code.status());
}

}  // namespace

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
      "\nlwqctl help COMMAND tells more. Exit codes: 0 done, 1 job failed, 2 usage, 3 not "
      "found,\n4 denied, 5 unreachable, 6 timeout, 7 quota, 8 conflict, 9 invalid input, "
      "10 corrupt data,\n130 interrupted.\n");
  return text;
}

int RunProgram(absl::Span<const std::string> words, std::ostream* out, std::ostream* err) {
  if (words.empty()) {
    *err << ProgramHelp() << std::flush;
    return kExitUsage;
  }
  if (words[0] == "help" || words[0] == "--help" || words[0] == "-h") {
    const CommandDef* command = words.size() > 1 ? FindCommand(words[1]) : nullptr;
    *out << (command != nullptr ? CommandHelp(*command) : ProgramHelp()) << std::flush;
    return kExitOk;
  }
  const std::string name = words[0] == "--version" ? "version" : words[0];
  const CommandDef* command = FindCommand(name);
  if (command == nullptr) {
    return PrintError(err, absl::StrCat("there is no command \"", LogSafe(name), "\""),
                      InvalidFailure("USAGE", "the first word is the command"));
  }
  return RunCommand(*command, words.subspan(1), out, err);
}

}  // namespace lwq::client
