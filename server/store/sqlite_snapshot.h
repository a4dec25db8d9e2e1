// A consistent copy of the records of a server that runs, or of one that does not.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace lwq {

// Copies DIRECTORY/lwq.db as of one moment to the file `to`, which may not be there. A server that
// works in the directory goes on, and takes no notice. NOT_FOUND when there is no such database;
// else the errors of a Store.
absl::Status SnapshotSqlite(const std::string& directory, const std::string& to);

}  // namespace lwq
