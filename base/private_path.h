// Files and folders that are their owner's alone, whatever the umask says.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace lwq {

// As MakeDirectories; the directory, where it is made here, has the mode 0700. One that is there
// already stays as it is.
absl::Status MakePrivateDirectory(const std::string& path);

// Makes an empty file if there is none. It has the mode 0600 afterwards, unless another owns it and
// lets this process write.
absl::Status MakePrivateFile(const std::string& path);

}  // namespace lwq
