// E4M3 without infinities, torch's float8_e4m3fn: a sign, four bits of exponent with a bias of 7,
// three of mantissa; all ones are NaN. One value at a time, round to nearest even.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>

namespace lwq {

inline constexpr float kE4M3Largest = 448;

inline float E4M3ToFloat(uint8_t code) {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> all{};
    for (uint32_t i = 0; i < 256; ++i) {
      const uint32_t exponent = i >> 3 & 15, mantissa = i & 7;
      float magnitude = static_cast<float>(mantissa) * 0x1p-9f;
      if (exponent > 0) magnitude = std::bit_cast<float>((exponent + 120) << 23 | mantissa << 20);
      if ((i & 0x7f) == 0x7f) magnitude = std::numeric_limits<float>::quiet_NaN();
      all[i] = i & 0x80 ? -magnitude : magnitude;
    }
    return all;
  }();
  return values[code];
}

// The nearest code; what lies beyond the largest value becomes that. NaN becomes NaN.
inline uint8_t FloatToE4M3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 24 & 0x80u;
  if (value != value) return static_cast<uint8_t>(sign | 0x7fu);
  const float magnitude = std::min(std::bit_cast<float>(bits & 0x7fffffffu), kE4M3Largest);
  const uint32_t whole = std::bit_cast<uint32_t>(magnitude);
  if (magnitude < 0x1p-6f) {  // subnormal: adding 2^14 lets the FPU round at 2^-9
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(magnitude + 0x1p14f) & 0xffu));
  }
  const uint32_t odd = whole >> 20 & 1u;
  return static_cast<uint8_t>(sign | ((whole - (120u << 23) + 0x7ffffu + odd) >> 20));
}

// The nearest value.
inline float RoundToE4M3(float value) { return E4M3ToFloat(FloatToE4M3(value)); }

}  // namespace lwq
