// The name that git gives to a file's content: SHA-1 over "blob <size>\0" and the bytes. Hubs list
// small files by it. Not for anything that has to withstand an attacker: it tells cut and mixed-up
// files.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

// Lower-case hexadecimal, 40 characters.
std::string GitBlobHash(absl::string_view content);
absl::StatusOr<std::string> GitBlobHashOfFile(const std::string& path);

}  // namespace lwq
