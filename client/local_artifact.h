// What the report beside an artifact on the local disk says of it, without any server.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/plan_diff.h"

namespace lwq::client {

// Whether `path` is a directory or a file FILE.gguf, and not the name of an artifact of a server.
bool IsArtifactHere(const std::string& path);

// The artifact at `path`, which it is called by, and its job, from lwq-report.json. NOT_FOUND
// "FILE_NOT_FOUND" where there is none; DATA_LOSS "JSON_INVALID" where it is none of lwq's.
absl::StatusOr<DiffSide> ReadSideAt(const std::string& path);

}  // namespace lwq::client
