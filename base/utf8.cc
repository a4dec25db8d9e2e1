#include "base/utf8.h"

#include <cstddef>
#include <cstdint>

namespace lwq {
namespace {

struct Decoded {
  bool valid;
  size_t size;  // of the sequence, or of its maximal damaged prefix
};

// Table 3-7 of the Unicode standard.
Decoded DecodeAt(absl::string_view text, size_t at) {
  const uint8_t lead = static_cast<uint8_t>(text[at]);
  if (lead < 0x80) return {true, 1};
  if (lead < 0xC2 || lead > 0xF4) return {false, 1};
  const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  uint8_t low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < size; ++i) {
    if (at + i >= text.size()) return {false, i};
    const uint8_t byte = static_cast<uint8_t>(text[at + i]);
    if (byte < low || byte > high) return {false, i};
    low = 0x80;
    high = 0xBF;
  }
  return {true, size};
}

}  // namespace

size_t ValidUtf8Prefix(absl::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Decoded decoded = DecodeAt(text, at);
    if (!decoded.valid) break;
    at += decoded.size;
  }
  return at;
}

bool IsValidUtf8(absl::string_view text) { return ValidUtf8Prefix(text) == text.size(); }

std::string RepairUtf8(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Decoded decoded = DecodeAt(text, at);
    if (decoded.valid) {
      out.append(text.data() + at, decoded.size);
    } else {
      out += "\xEF\xBF\xBD";
    }
    at += decoded.size;
  }
  return out;
}

absl::string_view CutToCharacters(absl::string_view text, size_t most) {
  if (text.size() <= most) return text;
  size_t end = most;
  // At most three bytes may follow the first one of a character.
  for (int i = 0; i < 3 && end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80; ++i) {
    --end;
  }
  return text.substr(0, end);
}

}  // namespace lwq
