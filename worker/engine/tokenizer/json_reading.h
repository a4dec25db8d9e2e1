// JSON from files that nobody vouches for: bounded depth and size, typed access with errors that
// name the field. Included by .cc files only.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace lwq {

using Json = nlohmann::json;

// "TOKENIZER_INVALID" when it is no JSON, deeper than 32 levels or of more than 4 M values.
absl::StatusOr<Json> ParseTokenizerJson(absl::string_view text, absl::string_view file_name);

// Members of `object` (which is an object): the default when missing or null, "TOKENIZER_INVALID"
// naming `key` for another type.
absl::StatusOr<bool> BoolField(const Json& object, const char* key, bool fallback);
absl::StatusOr<int64_t> IntField(const Json& object, const char* key, int64_t fallback);
absl::StatusOr<std::string> StringField(const Json& object, const char* key,
                                        absl::string_view fallback);
// The member, or null when there is none.
const Json& FieldOrNull(const Json& object, const char* key);

}  // namespace lwq
