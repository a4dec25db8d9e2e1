// Pieces of block layouts that several types share. Internal to this folder.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace lwq {

inline uint16_t LoadU16(const uint8_t* bytes) {
  return static_cast<uint16_t>(bytes[0] | bytes[1] << 8);
}
inline void StoreU16(uint16_t value, uint8_t* bytes) {
  bytes[0] = static_cast<uint8_t>(value);
  bytes[1] = static_cast<uint8_t>(value >> 8);
}

// Evenly spaced levels first, first + 1, ...
template <int kFirst, int kCount>
constexpr std::array<float, kCount> EvenLevels() {
  std::array<float, kCount> levels{};
  for (int i = 0; i < kCount; ++i) levels[static_cast<size_t>(i)] = static_cast<float>(kFirst + i);
  return levels;
}

// 2 * `half` codes of 4 bits in `half` bytes: code i in the low half of byte i, code half + i in
// its high half. Higher bits of the codes are left out.
inline void PackNibbles(const uint8_t* codes, int half, uint8_t* bytes) {
  for (int i = 0; i < half; ++i) {
    bytes[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[half + i] & 15) << 4);
  }
}

}  // namespace lwq
