// The name of a worker that was given none.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace lwq {

// Of the host's name, which may be anything ("3f2ac91d", "GPU_Box.example.com"), and the process:
// an id as the server takes it, of at most 63 lower-case letters, digits and dashes, the first a
// letter.
std::string DefaultWorkerId(absl::string_view host, int pid);

}  // namespace lwq
