// Reads the numbers of tests/golden/gguf.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"

namespace lwq::testing {

inline std::vector<uint8_t> FromHex(const std::string& hex) {
  const std::string bytes = absl::HexStringToBytes(hex);
  return {bytes.begin(), bytes.end()};
}

// Digits in the order of the number.
inline std::vector<float> FloatsFromHex(const std::string& hex) {
  const std::vector<uint8_t> bytes = FromHex(hex);
  std::vector<float> values(bytes.size() / 4);
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits = 0;
    for (size_t b = 0; b < 4; ++b) bits = bits << 8 | bytes[4 * i + b];
    values[i] = std::bit_cast<float>(bits);
  }
  return values;
}

}  // namespace lwq::testing
