// Models by name: "hf://organization/name", with "@revision" behind it where it is not the newest.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq::client {

struct HubName {
  std::string repository;         // "organization/name"
  std::string revision = "main";  // a branch, tag or commit

  std::string Text() const;  // "organization/name", with "@revision" when it is not main
};

// Whether `model` is meant to be a name and no directory: it begins with hf://, or is of the form
// organization/name and no such directory exists.
bool IsHubName(const std::string& model);

// INVALID_ARGUMENT USAGE for what is no name.
absl::StatusOr<HubName> ParseHubName(absl::string_view model);

}  // namespace lwq::client
