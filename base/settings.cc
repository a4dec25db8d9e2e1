#include "base/settings.h"

#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/settings_file.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kMostFileBytes = 1 << 20;
constexpr char kConfigFlag[] = "config";
constexpr char kPrintFlag[] = "print-config";

bool IsGiven(const std::vector<std::string>& words, const std::string& flag) {
  const std::string name = absl::StrCat("--", flag);
  for (const std::string& word : words) {
    if (word == "--") return false;
    if (word == name || absl::StartsWith(word, absl::StrCat(name, "="))) return true;
  }
  return false;
}

absl::Status CheckSections(const SettingsFile& file, const SettingsSource& source) {
  for (const auto& [section, values] : file.sections) {
    if (std::count(source.sections.begin(), source.sections.end(), section) > 0) continue;
    return Failure(
        reasons::kFlagInvalid,
        absl::StrCat(
            "the settings ", source.file_name, " have a section [", LogSafe(section), "]; ",
            source.sections.empty()
                ? "there are none here: put its keys at the top"
                : absl::StrCat("sections are commands: ", absl::StrJoin(source.sections, ", "))));
  }
  return absl::OkStatus();
}

// By key: those of the section before those outside of all.
absl::StatusOr<SettingsValues> ReadFileValues(absl::Span<const SettableFlag> flags,
                                              const SettingsSource& source) {
  LWQ_ASSIGN_OR_RETURN(SettingsFile file, ParseSettingsFile(source.file, source.file_name));
  LWQ_RETURN_IF_ERROR(CheckSections(file, source));
  SettingsValues values;
  const auto take = [&](SettingsValues& from, bool top) -> absl::Status {
    for (auto& [name, inputs] : from) {
      const bool own = std::any_of(flags.begin(), flags.end(),
                                   [&name = name](const auto& flag) { return flag.name == name; });
      const bool others =
          top && std::count(source.other_flags.begin(), source.other_flags.end(), name) > 0;
      if (!own && !others) {
        return Failure(reasons::kFlagInvalid,
                       absl::StrCat("the settings ", source.file_name, " name \"", LogSafe(name),
                                    "\", but there is no flag --", LogSafe(name)));
      }
      if (own) values[name] = std::move(inputs);
    }
    return absl::OkStatus();
  };
  LWQ_RETURN_IF_ERROR(take(file.top, /*top=*/true));
  LWQ_RETURN_IF_ERROR(take(file.sections[source.section], /*top=*/false));
  return values;
}

absl::StatusOr<bool> ReadSwitch(const std::string& where, const std::string& value) {
  const std::string text = absl::AsciiStrToLower(value);
  for (const char* yes : {"true", "1", "yes", "on"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"false", "0", "no", "off", ""}) {
    if (text == no) return false;
  }
  return Failure(reasons::kFlagInvalid,
                 absl::StrCat(where, " is \"", LogSafe(value), "\"; expected true or false"));
}

// What one flag is set to, behind the words; `where` names what set it.
absl::Status Append(const SettableFlag& flag, const std::vector<std::string>& values,
                    const std::string& where, std::vector<std::string>& added) {
  if (flag.is_switch) {
    LWQ_ASSIGN_OR_RETURN(const bool on, ReadSwitch(where, values.empty() ? "" : values[0]));
    if (on) added.push_back(absl::StrCat("--", flag.name));
    return absl::OkStatus();
  }
  if (!flag.is_list) {
    // A list within one value has commas between.
    added.push_back(absl::StrCat("--", flag.name, "=", absl::StrJoin(values, ",")));
    return absl::OkStatus();
  }
  for (const std::string& value : values) {
    added.push_back(absl::StrCat("--", flag.name, "=", value));
  }
  return absl::OkStatus();
}

std::vector<SettableFlag> FlagsOf(const CLI::App& app) {
  std::vector<SettableFlag> flags;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty()) continue;
    const std::string& name = option->get_lnames().front();
    if (name == "help" || name == "version" || name == kConfigFlag || name == kPrintFlag) continue;
    if (!option->get_configurable()) continue;
    flags.push_back({.name = name,
                     .is_switch = option->get_items_expected_max() == 0,
                     .is_list = option->get_items_expected_max() > 1});
  }
  return flags;
}

// The value of --config in the words; "" without one.
std::string ConfigIn(const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--config" && i + 1 < words.size()) return words[i + 1];
    if (absl::StartsWith(words[i], "--config=")) return words[i].substr(sizeof("--config=") - 1);
  }
  return "";
}

absl::StatusOr<std::vector<std::string>> WordsOf(const CLI::App& app, int argc, char** argv,
                                                 const std::string& prefix) {
  std::vector<std::string> words(argv + 1, argv + argc);
  SettingsSource source{.prefix = prefix, .environment = EnvironmentVariable};
  source.file_name = ConfigIn(words);
  if (source.file_name.empty()) {
    source.file_name = EnvironmentVariable(VariableOf(prefix, kConfigFlag)).value_or("");
  }
  if (!source.file_name.empty()) {
    LWQ_ASSIGN_OR_ANNOTATE(source.file, ReadFile(source.file_name, kMostFileBytes),
                           "reading the settings");
  }
  return WithSettings(std::move(words), FlagsOf(app), source);
}

}  // namespace

std::string VariableOf(const std::string& prefix, const std::string& flag) {
  return absl::StrCat(prefix, absl::AsciiStrToUpper(absl::StrReplaceAll(flag, {{"-", "_"}})));
}

std::optional<std::string> EnvironmentVariable(const std::string& name) {
  const char* value = ::getenv(name.c_str());
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

absl::StatusOr<std::vector<std::string>> WithSettings(std::vector<std::string> words,
                                                      absl::Span<const SettableFlag> flags,
                                                      const SettingsSource& source) {
  LWQ_ASSIGN_OR_RETURN(const SettingsValues in_file, ReadFileValues(flags, source));
  std::vector<std::string> added;
  for (const SettableFlag& flag : flags) {
    if (IsGiven(words, flag.name)) continue;
    const std::string variable = VariableOf(source.prefix, flag.name);
    const std::optional<std::string> value =
        source.environment ? source.environment(variable) : std::nullopt;
    // An empty variable is as good as none: that is how one is taken back in many shells.
    if (value && !value->empty()) {
      const std::vector<std::string> values =
          flag.is_list ? std::vector<std::string>(absl::StrSplit(*value, ','))
                       : std::vector<std::string>{*value};
      LWQ_RETURN_IF_ERROR(Append(flag, values, absl::StrCat("$", variable), added));
      continue;
    }
    if (const auto found = in_file.find(flag.name); found != in_file.end()) {
      const std::string where = absl::StrCat(flag.name, " in ", source.file_name);
      LWQ_RETURN_IF_ERROR(Append(flag, found->second, where, added));
    }
  }
  const auto end_of_flags = std::find(words.begin(), words.end(), "--");
  words.insert(end_of_flags, added.begin(), added.end());
  return words;
}

std::optional<int> ParseWithSettings(CLI::App& app, int argc, char** argv,
                                     const std::string& prefix, int error_code) {
  std::string config;
  bool print = false;
  app.add_option(absl::StrCat("--", kConfigFlag), config,
                 absl::StrCat("TOML file of flags, such as data-dir = \"/data\" (default $",
                              VariableOf(prefix, kConfigFlag), ")"));
  app.add_flag(absl::StrCat("--", kPrintFlag), print,
               "print the settings in force as TOML, and end");
  app.footer(absl::StrCat("Each flag may also be set by a variable ($", prefix,
                          "LOG_LEVEL for --log-level) or by the file of --config; the command line "
                          "wins over variables, and they over the file."));
  absl::StatusOr<std::vector<std::string>> words = WordsOf(app, argc, argv, prefix);
  if (!words.ok()) {
    std::fprintf(stderr, "%s\n", std::string(words.status().message()).c_str());
    return error_code;
  }
  // Required flags are not asked of one who only wants to see the others.
  const bool only_prints = IsGiven(*words, kPrintFlag);
  if (only_prints) {
    for (CLI::Option* option : app.get_options()) {
      option->required(false);
      option->capture_default_str();  // the value that it has when it is not given
    }
  }
  try {
    std::reverse(words->begin(), words->end());  // CLI11 takes the words last first
    app.parse(std::move(*words));
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : error_code;
  }
  if (!print) return std::nullopt;
  app.remove_option(app.get_option(absl::StrCat("--", kPrintFlag)));
  app.remove_option(app.get_option(absl::StrCat("--", kConfigFlag)));
  const std::string settings =
      app.config_to_str(/*default_also=*/true, /*write_description=*/false);
  for (const absl::string_view line : absl::StrSplit(settings, '\n', absl::SkipEmpty())) {
    // What is set to nothing is not set.
    const bool nothing = absl::EndsWith(line, "=\"\"") || absl::EndsWith(line, "=\"[]\"");
    if (!nothing) std::printf("%s\n", std::string(line).c_str());
  }
  return 0;
}

}  // namespace lwq
