// Other forms of what a command prints as JSON. Pure.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq::client {

// One or several JSON texts as YAML documents: block style, strings quoted as JSON quotes them
// where plain ones could be read as something else. INTERNAL for what is no JSON.
absl::StatusOr<std::string> JsonToYaml(absl::string_view json);

// The `name` of each object in the lists at the top, or of the object itself; one a line, without
// the collection ("jobs/j-1" as "j-1").
absl::StatusOr<std::string> NamesInJson(absl::string_view json);

}  // namespace lwq::client
