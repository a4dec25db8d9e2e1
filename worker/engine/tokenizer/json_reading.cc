// See json_reading.h.
#include "worker/engine/tokenizer/json_reading.h"

#include <exception>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"

namespace lwq {
namespace {

constexpr int kMaxDepth = 32;
constexpr int64_t kMaxValues = 4 << 20;

absl::Status WrongType(const char* key, absl::string_view expected, const Json& value) {
  return Failure(reasons::kTokenizerInvalid,
                 absl::StrCat("\"", key, "\" must be ", expected, ", found ", value.type_name()));
}

}  // namespace

absl::StatusOr<Json> ParseTokenizerJson(absl::string_view text, absl::string_view file_name) {
  int64_t num_values = 0;
  const auto watch = [&num_values](int depth, Json::parse_event_t, Json&) {
    if (depth > kMaxDepth) throw std::runtime_error("nested deeper than 32 levels");
    if (++num_values > kMaxValues) throw std::runtime_error("more than 4194304 values");
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const std::exception& error) {
    return Failure(reasons::kTokenizerInvalid,
                   absl::StrCat(file_name, " is not readable JSON: ", error.what()));
  }
}

const Json& FieldOrNull(const Json& object, const char* key) {
  static const Json null;
  const auto it = object.find(key);
  return it == object.end() ? null : *it;
}

absl::StatusOr<bool> BoolField(const Json& object, const char* key, bool fallback) {
  const Json& value = FieldOrNull(object, key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) return WrongType(key, "true or false", value);
  return value.get<bool>();
}

absl::StatusOr<int64_t> IntField(const Json& object, const char* key, int64_t fallback) {
  const Json& value = FieldOrNull(object, key);
  if (value.is_null()) return fallback;
  if (!value.is_number_integer()) return WrongType(key, "an integer", value);
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return WrongType(key, "an integer of 64 bits", value);
  }
  return value.get<int64_t>();
}

absl::StatusOr<std::string> StringField(const Json& object, const char* key,
                                        absl::string_view fallback) {
  const Json& value = FieldOrNull(object, key);
  if (value.is_null()) return std::string(fallback);
  if (!value.is_string()) return WrongType(key, "a string", value);
  return value.get<std::string>();
}

}  // namespace lwq
