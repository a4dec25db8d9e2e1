#include "worker/engine/model/config_reader.h"

#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/io/json_file.h"
#include "worker/engine/model/config_fields.h"

namespace lwq {
namespace {

constexpr size_t kShownBytes = 80;

std::string Shown(const nlohmann::json* value) {
  if (value == nullptr) return "nothing";
  const std::string text = value->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  return text.size() > kShownBytes ? absl::StrCat(text.substr(0, kShownBytes), "...") : text;
}

bool SwitchesNothingOn(const nlohmann::json& value) {
  return value.is_null() || value == false || value == "" ||
         (value.is_structured() && value.empty());
}

}  // namespace

struct ConfigReader::Json {
  nlohmann::json value;
  std::set<std::string, std::less<>> asked;
  std::map<std::string, std::shared_ptr<Json>, std::less<>> objects;  // that were asked for

  const nlohmann::json* Find(absl::string_view field) {
    asked.insert(std::string(field));
    const auto it = value.find(std::string(field));
    return it == value.end() || it->is_null() ? nullptr : &*it;
  }
};

ConfigReader::ConfigReader(std::shared_ptr<Json> json, std::string prefix)
    : json_(std::move(json)), prefix_(std::move(prefix)) {}

absl::StatusOr<ConfigReader> ConfigReader::Parse(absl::string_view json) {
  JsonLimits limits;
  limits.reason = reasons::kConfigInvalid.name;
  LWQ_RETURN_IF_ERROR(CheckJson(json, limits, "config.json"));
  auto parsed = std::make_shared<Json>();
  parsed->value = nlohmann::json::parse(json.begin(), json.end(), nullptr, false);
  if (!parsed->value.is_object()) {
    return Failure(reasons::kConfigInvalid, "config.json: expected a JSON object");
  }
  return ConfigReader(std::move(parsed), "");
}

bool ConfigReader::Has(absl::string_view field) const { return json_->Find(field) != nullptr; }

bool ConfigReader::IsNull(absl::string_view field) const {
  return !Has(field) && json_->value.contains(std::string(field));
}

absl::Status ConfigReader::Refuse(absl::string_view field, absl::string_view accepted) const {
  return Failure(reasons::kConfigInvalid,
                 absl::StrCat("config.json: field ", prefix_, field, ": found ",
                              Shown(json_->Find(field)), ", accepted: ", accepted));
}

absl::StatusOr<int64_t> ConfigReader::Int(absl::string_view field, int64_t min, int64_t max,
                                          std::optional<int64_t> fallback) const {
  const nlohmann::json* value = json_->Find(field);
  if (value == nullptr && fallback.has_value()) return *fallback;
  const std::string accepted = absl::StrCat("a whole number from ", min, " to ", max);
  if (value == nullptr || !value->is_number_integer()) return Refuse(field, accepted);
  // Past int64 the library keeps an unsigned number, which would wrap.
  if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(max)) {
    return Refuse(field, accepted);
  }
  const int64_t number = value->get<int64_t>();
  if (number < min || number > max) return Refuse(field, accepted);
  return number;
}

absl::StatusOr<double> ConfigReader::Number(absl::string_view field, double min, double max,
                                            std::optional<double> fallback) const {
  const nlohmann::json* value = json_->Find(field);
  if (value == nullptr && fallback.has_value()) return *fallback;
  const std::string accepted = absl::StrCat("a number from ", min, " to ", max);
  if (value == nullptr || !value->is_number()) return Refuse(field, accepted);
  const double number = value->get<double>();
  if (!(number >= min && number <= max)) return Refuse(field, accepted);
  return number;
}

absl::StatusOr<bool> ConfigReader::Bool(absl::string_view field,
                                        std::optional<bool> fallback) const {
  const nlohmann::json* value = json_->Find(field);
  if (value == nullptr && fallback.has_value()) return *fallback;
  if (value == nullptr || !value->is_boolean()) return Refuse(field, "true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> ConfigReader::String(absl::string_view field,
                                                 std::optional<std::string> fallback) const {
  const nlohmann::json* value = json_->Find(field);
  if (value == nullptr && fallback.has_value()) return *fallback;
  if (value == nullptr || !value->is_string()) return Refuse(field, "a string");
  return value->get<std::string>();
}

absl::StatusOr<std::vector<std::string>> ConfigReader::Strings(absl::string_view field) const {
  std::vector<std::string> strings;
  const nlohmann::json* value = json_->Find(field);
  if (value == nullptr) return strings;
  if (!value->is_array()) return Refuse(field, "a list of strings");
  for (const nlohmann::json& element : *value) {
    if (!element.is_string()) return Refuse(field, "a list of strings");
    strings.push_back(element.get<std::string>());
  }
  return strings;
}

absl::StatusOr<std::vector<double>> ConfigReader::Numbers(absl::string_view field, size_t count,
                                                          double min, double max) const {
  const std::string accepted =
      absl::StrCat("a list of ", count, " numbers from ", min, " to ", max);
  const nlohmann::json* value = json_->Find(field);
  if (value == nullptr || !value->is_array() || value->size() != count) {
    return Refuse(field, accepted);
  }
  std::vector<double> numbers;
  for (const nlohmann::json& element : *value) {
    if (!element.is_number()) return Refuse(field, accepted);
    numbers.push_back(element.get<double>());
    if (!(numbers.back() >= min && numbers.back() <= max)) return Refuse(field, accepted);
  }
  return numbers;
}

absl::StatusOr<std::vector<int64_t>> ConfigReader::Ints(absl::string_view field, int64_t min,
                                                        int64_t max) const {
  std::vector<int64_t> numbers;
  const nlohmann::json* value = json_->Find(field);
  if (value == nullptr) return numbers;
  const std::string accepted = absl::StrCat("a list of whole numbers from ", min, " to ", max);
  if (!value->is_array()) return Refuse(field, accepted);
  for (const nlohmann::json& element : *value) {
    if (!element.is_number_integer() || element < min || element > max) {
      return Refuse(field, accepted);
    }
    numbers.push_back(element.get<int64_t>());
  }
  return numbers;
}

absl::StatusOr<int64_t> ConfigReader::TokenId(absl::string_view field, int64_t vocab_size) const {
  const nlohmann::json* value = json_->Find(field);
  if (value == nullptr) return -1;
  if (value->is_array() && !value->empty()) value = &value->front();
  if (!value->is_number_integer()) return Refuse(field, "a token id or a list of them");
  const int64_t id = value->get<int64_t>();
  if (id < -1 || id >= vocab_size) {
    return Refuse(field, absl::StrCat("token ids below the vocabulary's size ", vocab_size));
  }
  return id;
}

absl::StatusOr<ConfigReader> ConfigReader::Object(absl::string_view field) const {
  const nlohmann::json* value = json_->Find(field);
  if (value == nullptr || !value->is_object()) return Refuse(field, "an object");
  std::shared_ptr<Json>& inner = json_->objects[std::string(field)];
  if (inner == nullptr) {
    inner = std::make_shared<Json>();
    inner->value = *value;
  }
  return ConfigReader(inner, absl::StrCat(prefix_, field, "."));
}

std::vector<std::string> ConfigReader::NotUnderstood() const {
  std::vector<std::string> fields;
  for (const auto& [field, value] : json_->value.items()) {
    if (const auto inner = json_->objects.find(field); inner != json_->objects.end()) {
      const ConfigReader reader(inner->second, absl::StrCat(prefix_, field, "."));
      for (std::string& name : reader.NotUnderstood()) fields.push_back(std::move(name));
    } else if (!json_->asked.contains(field) && !IsHarmlessField(field) &&
               !SwitchesNothingOn(value)) {
      fields.push_back(absl::StrCat(prefix_, field, ": ", Shown(&value)));
    }
  }
  return fields;
}

}  // namespace lwq
