// Runs a command of lwq-server on files of this machine, for commands that need no server.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace lwq::client {

// `arguments` begin with the command ("backup"), which knows --json. Its result, one line of JSON;
// else its error, with the reason. `may_go_on`, if set, is asked meanwhile: what it returns ends
// the program.
absl::StatusOr<std::string> RunServerProgram(std::vector<std::string> arguments,
                                             const std::function<absl::Status()>& may_go_on);

}  // namespace lwq::client
