#include "client/flags.h"

#include <algorithm>
#include <memory>

#include "CLI/CLI.hpp"
#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/byte_size.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/suggest.h"

namespace lwq::client {
namespace {

absl::Status FlagInvalid(absl::string_view name, absl::string_view value, absl::string_view why) {
  return Failure(reasons::kFlagInvalid,
                 absl::StrCat("--", name, " \"", LogSafe(value), "\": ", why));
}

// Of words that were refused: the first flag that there is not, with the one that may be meant.
absl::Status UnknownFlag(absl::Span<const absl::Span<const FlagDef>> groups,
                         absl::Span<const std::string> words, absl::string_view why) {
  std::vector<std::string> names = {"help"};
  for (const absl::Span<const FlagDef> group : groups) {
    for (const FlagDef& flag : group) names.push_back(flag.name);
  }
  for (const std::string& word : words) {
    if (word == "--") break;
    if (!absl::StartsWith(word, "--")) continue;
    const std::string name = word.substr(2, word.find('=') - 2);
    if (absl::c_linear_search(names, name)) continue;
    return Failure(reasons::kUsage, absl::StrCat("there is no flag --", LogSafe(name), " here",
                                                 DidYouMean(name, names, "--")));
  }
  return Failure(reasons::kUsage, LogSafe(why));
}

}  // namespace

std::string Flags::Get(absl::string_view name) const {
  const auto found = values_.find(std::string(name));
  return found == values_.end() ? "" : found->second;
}

absl::StatusOr<int64_t> Flags::GetInt(absl::string_view name, int64_t fallback, int64_t lowest,
                                      int64_t highest) const {
  if (!Has(name)) return fallback;
  int64_t value = 0;
  if (!absl::SimpleAtoi(Get(name), &value) || value < lowest || value > highest) {
    return FlagInvalid(name, Get(name),
                       absl::StrCat("expected a whole number from ", lowest, " to ", highest));
  }
  return value;
}

absl::StatusOr<int64_t> Flags::GetBytes(absl::string_view name) const {
  if (!Has(name)) return 0;
  const absl::StatusOr<int64_t> bytes = ParseByteSize(Get(name));
  if (!bytes.ok()) return FlagInvalid(name, Get(name), bytes.status().message());
  return bytes;
}

absl::StatusOr<std::vector<std::string>> Flags::GetList(absl::string_view name) const {
  std::vector<std::string> parts;
  if (!Has(name)) return parts;
  parts = absl::StrSplit(Get(name), ',');
  if (absl::c_linear_search(parts, "")) {
    return FlagInvalid(name, Get(name), "expected a list with commas between, nothing empty");
  }
  return parts;
}

absl::StatusOr<std::string> Flags::GetChoice(absl::string_view name,
                                             absl::Span<const absl::string_view> choices) const {
  if (!Has(name)) return std::string();
  if (!absl::c_linear_search(choices, Get(name))) {
    return FlagInvalid(name, Get(name),
                       absl::StrCat("expected ", absl::StrJoin(choices, ", "),
                                    DidYouMean(Get(name), std::vector<std::string>(
                                                              choices.begin(), choices.end()))));
  }
  return Get(name);
}

absl::StatusOr<ParsedLine> ParseLine(absl::Span<const absl::Span<const FlagDef>> groups,
                                     absl::Span<const std::string> words) {
  ParsedLine line;
  CLI::App app;
  app.set_help_flag();
  app.add_flag("-h,--help", line.help);
  app.add_option("arguments", line.arguments)->allow_extra_args();
  std::map<std::string, std::string> values;
  std::map<std::string, bool> switches;
  try {
    for (absl::Span<const FlagDef> group : groups) {
      for (const FlagDef& flag : group) {
        const bool output = absl::string_view(flag.name) == "output";
        const std::string option = absl::StrCat(output ? "-o," : "", "--", flag.name);
        if (*flag.value == '\0') {
          app.add_flag(option, switches[flag.name])->disable_flag_override();
        } else {
          app.add_option(option, values[flag.name])
              ->multi_option_policy(CLI::MultiOptionPolicy::Throw);
        }
      }
    }
    // CLI11 takes the words last first.
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
    for (const auto& [name, value] : values) {
      if (app.count(absl::StrCat("--", name)) > 0) line.flags.Set(name, value);
    }
  } catch (const CLI::ExtrasError& error) {
    if (line.help) return line;
    return UnknownFlag(groups, words, error.what());
  } catch (const CLI::Error& error) {
    if (line.help) return line;
    return Failure(reasons::kUsage, LogSafe(error.what()));
  }
  for (const auto& [name, given] : switches) {
    if (given) line.flags.Set(name, "true");
  }
  return line;
}

std::string FlagsHelp(absl::Span<const FlagDef> flags) {
  constexpr size_t kWidest = 28;
  std::string text;
  for (const FlagDef& flag : flags) {
    const std::string left =
        absl::StrCat("--", flag.name, *flag.value == '\0' ? "" : " ", flag.value);
    if (left.size() > kWidest) {
      absl::StrAppend(&text, "  ", left, "\n", std::string(kWidest + 4, ' '), flag.help, "\n");
    } else {
      absl::StrAppendFormat(&text, "  %-*s  %s\n", kWidest, left, flag.help);
    }
  }
  return text;
}

}  // namespace lwq::client
