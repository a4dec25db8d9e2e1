// UTF-8 as the tokenizers need it: decoding, the byte alphabet of GPT-2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/utf8.h"  // IWYU pragma: export

namespace lwq {

// Reads the code point at `*offset` of valid UTF-8 and moves past it.
char32_t NextCodePoint(absl::string_view text, size_t* offset);
void AppendUtf8(char32_t code_point, std::string* out);

// Number of Unicode code points of valid UTF-8.
int64_t CountCodePoints(absl::string_view text);

// INVALID_ARGUMENT "DATASET_INVALID", which says where the first damaged byte is.
absl::Status CheckUtf8(absl::string_view text);

// Unicode White_Space.
bool IsWhitespace(char32_t code_point);

// GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves, the 68 others for U+0100 on.
char32_t CharOfByte(uint8_t byte);
// -1 when the code point stands for no byte.
int ByteOfChar(char32_t code_point);

}  // namespace lwq
