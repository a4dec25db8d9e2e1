// Flags that were not given on the command line, taken from the environment and from a settings
// file: the same for every flag of every program. The command line wins over the environment, that
// over the file, and that over the default. docs/service.md tells users.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace CLI {
class App;
}

namespace lwq {

struct SettableFlag {
  std::string name;        // "data-dir", given as --data-dir
  bool is_switch = false;  // takes no value
  bool is_list = false;    // may be given several times
};

struct SettingsSource {
  std::string prefix;  // "LWQ_SERVER_": --data-dir is $LWQ_SERVER_DATA_DIR
  // Of a variable; nullopt when it is not set.
  std::function<std::optional<std::string>(const std::string&)> environment;
  std::string file;       // the text of a TOML file; its keys are flags' names
  std::string file_name;  // for errors
  std::string section;    // whose keys go before those at the top of the file
  std::vector<std::string> sections;  // that there may be
  // Flags of the program's other commands, which the top of the file may name too.
  std::vector<std::string> other_flags;
};

// `words`, and what they leave open of `flags`, as "--name=value". Switches are set by "true", "1",
// "yes" and "on"; lists have commas between in the environment, and are arrays in the file.
// INVALID_ARGUMENT FLAG_INVALID for a key of the file that is no flag or is there twice, for a section
// that is none, or a switch set to something else.
absl::StatusOr<std::vector<std::string>> WithSettings(std::vector<std::string> words,
                                                      absl::Span<const SettableFlag> flags,
                                                      const SettingsSource& source);

// "--data-dir" of a program with the prefix "LWQ_SERVER_" as "LWQ_SERVER_DATA_DIR".
std::string VariableOf(const std::string& prefix, const std::string& flag);

// Of this process.
std::optional<std::string> EnvironmentVariable(const std::string& name);

// Parses the line of a program whose flags are an App's, after adding --config FILE and
// --print-config. A code to end with (of --help, --version, --print-config: 0, of what cannot be
// parsed: `error_code`), or nullopt to go on.
std::optional<int> ParseWithSettings(CLI::App& app, int argc, char** argv,
                                     const std::string& prefix, int error_code);

}  // namespace lwq
