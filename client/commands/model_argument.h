// A model as a command is given it: a directory, or a name on a hub.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/commands/command.h"

namespace lwq::client {

// The directory itself, or the one that a named model was downloaded to, under the data directory. An
// absolute path that is not here is one of the server's machine, where a server is named.
// Progress goes to the invocation's stderr. NOT_FOUND MODEL_NOT_FOUND for what is neither.
absl::StatusOr<std::string> ModelDirectory(const Invocation& invocation, const std::string& model);

}  // namespace lwq::client
