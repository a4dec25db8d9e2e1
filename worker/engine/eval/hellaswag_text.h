// lm-evaluation-harness's clean-up of hellaswag, and Python's str.capitalize.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace lwq {

// First character in title case, all others in lower case.
std::string Capitalize(absl::string_view text);
// Strip; " [title]" becomes ". "; the shortest [...] without a newline go; pairs of blanks become
// one.
std::string CleanHellaswag(absl::string_view text);
// Without Unicode whitespace at both ends.
absl::string_view StripWhitespace(absl::string_view text);

}  // namespace lwq
