// How an input's function says that a promise was broken, and where it puts what is read as a file.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lwq::testing {

// OK for a refusal with a reason of its own (base/failure.def); INTERNAL for any other.
absl::Status ExpectTyped(const absl::Status& refusal);
// INTERNAL, saying `broken`.
absl::Status Broken(absl::string_view broken);

// A file of this process under a folder of its own in memory or, where there is none, on disk; the
// folder goes when the process ends. Aborts where nothing can be written.
std::string ScratchFile(absl::string_view name, absl::string_view content);
std::string ScratchFolder();

}  // namespace lwq::testing
