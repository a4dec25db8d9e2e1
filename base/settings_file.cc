#include "base/settings_file.h"

#include <toml++/toml.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/decimal.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

class Reader {
 public:
  Reader(const std::string& text, const std::string& name)
      : name_(name), lines_(absl::StrSplit(text, '\n')) {}

  absl::Status Wrong(const toml::source_region& where, absl::string_view what) const {
    const size_t number = where.begin.line;
    const absl::string_view line = number > 0 && number <= lines_.size()
                                       ? absl::StripAsciiWhitespace(lines_[number - 1])
                                       : absl::string_view();
    return Failure(reasons::kFlagInvalid,
                   absl::StrCat("the settings ", name_, ", line ", number, ": \"", LogSafe(line),
                                "\": ", LogSafe(what)));
  }

  absl::StatusOr<SettingsFile> File(const toml::table& table) const {
    SettingsFile file;
    for (const auto& [key, node] : table) {
      const std::string name(key.str());
      if (const toml::table* section = node.as_table()) {
        LWQ_ASSIGN_OR_RETURN(file.sections[name], Section(*section));
      } else {
        LWQ_ASSIGN_OR_RETURN(file.top[name], Values(node));
      }
    }
    return file;
  }

 private:
  absl::StatusOr<SettingsValues> Section(const toml::table& section) const {
    SettingsValues values;
    for (const auto& [key, node] : section) {
      LWQ_ASSIGN_OR_RETURN(values[std::string(key.str())], Values(node));
    }
    return values;
  }

  absl::StatusOr<std::vector<std::string>> Values(const toml::node& node) const {
    std::vector<std::string> values;
    if (const toml::array* array = node.as_array()) {
      for (const toml::node& element : *array) {
        LWQ_ASSIGN_OR_RETURN(std::string value, Value(element));
        values.push_back(std::move(value));
      }
      return values;
    }
    LWQ_ASSIGN_OR_RETURN(std::string value, Value(node));
    values.push_back(std::move(value));
    return values;
  }

  absl::StatusOr<std::string> Value(const toml::node& node) const {
    if (const auto* text = node.as_string()) return text->get();
    if (const auto* number = node.as_integer()) return absl::StrCat(number->get());
    if (const auto* number = node.as_floating_point()) return ShortestDecimal(number->get());
    if (const auto* on = node.as_boolean()) return std::string(on->get() ? "true" : "false");
    return Wrong(node.source(),
                 "a value is text in quotes, a number, true or false, or a list of those");
  }

  const std::string& name_;
  const std::vector<absl::string_view> lines_;
};

}  // namespace

absl::StatusOr<SettingsFile> ParseSettingsFile(const std::string& text, const std::string& name) {
  const Reader reader(text, name);
  try {
    return reader.File(toml::parse(text));
  } catch (const toml::parse_error& error) {
    return reader.Wrong(error.source(), absl::StrCat("no TOML (", std::string(error.description()),
                                                     "); text stands in quotes"));
  }
}

}  // namespace lwq
