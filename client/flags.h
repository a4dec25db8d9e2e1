// What a command takes on the command line, as data: parsing, help texts and shell completions are
// made from the same lists.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lwq::client {

struct FlagDef {
  const char* name;   // "budget", given as --budget
  const char* value;  // what its value is called in the help; empty: a switch without a value
  const char* help;
  const char* choices =
      "";  // values that a shell may complete, spaces between; they need not be all
};

// Flags that were given. Not thread-safe.
class Flags {
 public:
  // Empty when not given; "true" for a switch.
  std::string Get(absl::string_view name) const;
  bool Has(absl::string_view name) const { return values_.count(std::string(name)) > 0; }
  void Set(absl::string_view name, std::string value) {
    values_[std::string(name)] = std::move(value);
  }

  // The value as an integer in [lowest, highest], or `fallback` when the flag was not given.
  // INVALID_ARGUMENT FLAG_INVALID otherwise.
  absl::StatusOr<int64_t> GetInt(absl::string_view name, int64_t fallback, int64_t lowest,
                                 int64_t highest) const;
  // The value as bytes ("2GiB"), or 0 when not given.
  absl::StatusOr<int64_t> GetBytes(absl::string_view name) const;
  // Parts between commas; empty parts are INVALID_ARGUMENT FLAG_INVALID.
  absl::StatusOr<std::vector<std::string>> GetList(absl::string_view name) const;
  // The value, which must be one of `choices`, or empty when not given.
  absl::StatusOr<std::string> GetChoice(absl::string_view name,
                                        absl::Span<const absl::string_view> choices) const;

 private:
  std::map<std::string, std::string> values_;
};

struct ParsedLine {
  Flags flags;
  std::vector<std::string> arguments;
  bool help = false;
};

// Flags (--name VALUE, --name=VALUE) and plain arguments in any order; after "--" only arguments.
// INVALID_ARGUMENT USAGE for an unknown flag, a missing value or a flag given twice.
absl::StatusOr<ParsedLine> ParseLine(absl::Span<const absl::Span<const FlagDef>> groups,
                                     absl::Span<const std::string> words);

// One line a flag, names and help in columns.
std::string FlagsHelp(absl::Span<const FlagDef> flags);

}  // namespace lwq::client
