// Which directories requests may name. All of this looks at the file system, and a mount may hang:
// run it on the files executor only.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/lwq/v1/job.pb.h"

namespace lwq {

// The roots as CheckDirectory compares them: real paths, without a slash at the end.
// INVALID_ARGUMENT "PATH_NOT_ALLOWED" names one that is no directory.
absl::StatusOr<std::vector<std::string>> RealRoots(const std::vector<std::string>& roots);

// The real path of a directory that may be read; no roots: any. INVALID_ARGUMENT
// "PATH_NOT_ALLOWED", whose text does not tell whether it exists.
absl::StatusOr<std::string> CheckDirectory(const std::string& directory,
                                           const std::vector<std::string>& roots);
// Every directory that a specification names.
absl::Status CheckDirectories(const v1::JobSpec& spec, const std::vector<std::string>& roots);

}  // namespace lwq
