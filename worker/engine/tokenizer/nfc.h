// Unicode normalization form C (UAX 15), which the Qwen and GPT-NeoX tokenizers apply first.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace lwq {

// `text` is valid UTF-8. Unicode 14; code points assigned later pass unchanged.
std::string NormalizeNfc(absl::string_view text);

}  // namespace lwq
