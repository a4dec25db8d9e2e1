// The calibration text that is part of the binary: examples/calibration/books.txt.
#pragma once

#include "absl/strings/string_view.h"

namespace lwq {

// "" in a build from a tree without the file.
absl::string_view BuiltinBooksText();

}  // namespace lwq
