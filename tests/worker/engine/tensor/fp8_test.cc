// The codes of E4M3 against the definition, worked out here in double; io/fp8_blocks_test.cc holds
// the values against torch's record.
#include "worker/engine/tensor/fp8.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lwq {
namespace {

double ValueOf(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

TEST(Fp8, EveryValueHasItsCode) {
  for (int code = 0; code < 256; ++code) {
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(E4M3ToFloat(static_cast<uint8_t>(code))));
      continue;
    }
    const float value = E4M3ToFloat(static_cast<uint8_t>(code));
    EXPECT_EQ(value, ValueOf(code)) << code;
    EXPECT_EQ(FloatToE4M3(value), code) << code;
  }
}

TEST(Fp8, WhatLiesBetweenGoesToTheNearestAndTiesToEven) {
  for (int code = 0; code < 0x7e; ++code) {
    const double low = ValueOf(code), high = ValueOf(code + 1);
    const float middle = static_cast<float>((low + high) / 2);
    const int even = code % 2 == 0 ? code : code + 1;
    EXPECT_EQ(FloatToE4M3(middle), even) << code;
    EXPECT_EQ(FloatToE4M3(-middle), even | 0x80) << code;
    EXPECT_EQ(FloatToE4M3(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(FloatToE4M3(std::nextafter(middle, 1000.0f)), code + 1);
  }
}

TEST(Fp8, WhatIsBeyondBecomesTheLargest) {
  EXPECT_EQ(RoundToE4M3(1e30f), 448);
  EXPECT_EQ(RoundToE4M3(-HUGE_VALF), -448);
  EXPECT_TRUE(std::isnan(RoundToE4M3(NAN)));
}

}  // namespace
}  // namespace lwq
