// Whether bytes are text, and text that is damaged made whole.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace lwq {

// How many bytes of well-formed UTF-8 `text` begins with.
size_t ValidUtf8Prefix(absl::string_view text);
// Whether `text` is well-formed UTF-8 (no surrogates, no overlong forms, at most U+10FFFF).
bool IsValidUtf8(absl::string_view text);
// The first `most` bytes at most, and no part of a character at the end.
absl::string_view CutToCharacters(absl::string_view text, size_t most);
// Each maximal damaged sequence becomes one U+FFFD, as the Unicode standard advises and Python
// does.
std::string RepairUtf8(absl::string_view text);

}  // namespace lwq
