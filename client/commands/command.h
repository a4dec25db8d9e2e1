// A command of lwqctl and what it is given.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/flags.h"

namespace lwq::client {

struct Invocation {
  Flags flags;
  std::vector<std::string> arguments;
  std::ostream* out;  // results
  std::ostream* err;  // progress, warnings, errors
};

// What a command's user can do about a reason, where that is more than base/failure.def says.
struct Advice {
  const char* reason;
  const char* text;
};

struct CommandDef {
  const char* name;
  const char* arguments;  // "MODEL_DIR", for the help
  const char* summary;    // one line
  const char* examples;   // whole lines, indented by two
  absl::Span<const FlagDef> flags;
  // A list shared with other commands; null: none.
  absl::Span<const FlagDef> (*more_flags)();
  int fewest_arguments;
  int most_arguments;
  // The exit code, or an error that main prints (errors.h). May not throw.
  absl::StatusOr<int> (*run)(Invocation& invocation);
  bool hidden = false;
  bool takes_settings = true;  // from the environment and the settings file
  absl::Span<const Advice> advice = {};
};

// Every command, sorted by name: client/commands/commands.def.
absl::Span<const CommandDef* const> AllCommands();
// Null when there is none.
const CommandDef* FindCommand(absl::string_view name);

// Flags that every command takes: --data-dir, --json, --server, --timeout, --tls-*,
// --token-file.
absl::Span<const FlagDef> CommonFlags();

// All that a command takes: its own, those it shares, the common ones.
std::vector<FlagDef> FlagsOf(const CommandDef& command);

// The help of one command, and the list of all.
std::string CommandHelp(const CommandDef& command);
std::string ProgramHelp();

// lwqctl: finds the command, parses, runs it, prints what is wrong. `words` without the program's
// name; flags of every command may stand before the command. Returns the exit code.
int RunProgram(absl::Span<const std::string> words, std::ostream* out, std::ostream* err);

}  // namespace lwq::client
