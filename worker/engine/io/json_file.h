// JSON that came from outside: checked against limits before anybody builds a tree of it. Strict
// (RFC 8259, UTF-8), no duplicate keys, bounded size and depth, so that the text may then be handed
// to any JSON library without surprises. Rules: service-design, hostile input.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

struct JsonLimits {
  int64_t max_bytes = int64_t{4} << 20;
  int max_depth = 32;
  // What a refusal is called (base/failure.h), for instance "CONFIG_INVALID".
  absl::string_view reason = "JSON_INVALID";
};

// OK when `text` is one JSON value within `limits`. INVALID_ARGUMENT with the limits' reason
// otherwise; the message begins with `where` and has the byte position.
absl::Status CheckJson(absl::string_view text, const JsonLimits& limits, absl::string_view where);

// Reads a file and checks it. NOT_FOUND when it does not exist; otherwise as CheckJson.
absl::StatusOr<std::string> ReadJsonFile(const std::string& path, const JsonLimits& limits);

}  // namespace lwq
