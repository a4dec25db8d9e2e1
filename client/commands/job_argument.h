// A job that a command is to look at, by its name or by how that begins.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/client.h"

namespace lwq::client {

// "j-1", "jobs/j-1", or the beginning of one job's name, as "jobs/NAME". A name that there is goes
// before longer ones. Of what no job's name begins with, as it was given: the command's own call
// says what is wrong. NOT_FOUND with the names where several begin so. For commands that change
// nothing; others take whole names.
absl::StatusOr<std::string> JobArgument(Client* client, const std::string& argument);

}  // namespace lwq::client
