// A settings file: TOML whose keys are flags' names and whose tables ("[quantize]") are commands.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace lwq {

// By key; a list has as many values as it has elements, everything else one. Numbers are as short
// as they can be, switches "true" or "false".
using SettingsValues = std::map<std::string, std::vector<std::string>>;

struct SettingsFile {
  SettingsValues top;  // the keys before the first table
  std::map<std::string, SettingsValues> sections;
};

// INVALID_ARGUMENT FLAG_INVALID, with `name` and the line, for text that is no TOML (a key that is
// there twice among it), and for values that no flag has: dates, tables within tables, lists of
// lists.
absl::StatusOr<SettingsFile> ParseSettingsFile(const std::string& text, const std::string& name);

}  // namespace lwq
