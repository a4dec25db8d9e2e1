#include "worker/engine/tensor/half.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace lwq {
namespace {

// The value of a half from its fields, in double: sign, exponent bits, mantissa bits.
double ValueOf(uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
  }
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

TEST(HalfTest, EveryValueWidensToItsDefinitionAndComesBack) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const uint16_t bits = static_cast<uint16_t>(i);
    const double half = ValueOf(bits, 5, 10);
    const double brain = ValueOf(bits, 8, 7);
    if (std::isnan(half)) {
      EXPECT_TRUE(std::isnan(F16ToFloat(bits))) << i;
      EXPECT_TRUE(std::isnan(F16ToFloat(FloatToF16(F16ToFloat(bits))))) << i;
    } else {
      EXPECT_EQ(F16ToFloat(bits), half) << i;
      EXPECT_EQ(FloatToF16(F16ToFloat(bits)), bits) << i;
    }
    if (std::isnan(brain)) {
      EXPECT_TRUE(std::isnan(BF16ToFloat(bits))) << i;
      EXPECT_TRUE(std::isnan(BF16ToFloat(FloatToBF16(BF16ToFloat(bits))))) << i;
    } else {
      EXPECT_EQ(BF16ToFloat(bits), static_cast<float>(brain)) << i;
      EXPECT_EQ(FloatToBF16(BF16ToFloat(bits)), bits) << i;
    }
  }
}

// Between two neighbours the nearer is taken, and the even one in the middle.
TEST(HalfTest, NarrowingRoundsToNearestEven) {
  for (uint16_t low = 0; low < 0x7bff; ++low) {
    const float a = F16ToFloat(low);
    const float b = F16ToFloat(static_cast<uint16_t>(low + 1));
    const float middle = (a + b) / 2;  // exact: F32 has 13 more bits
    const uint16_t even = static_cast<uint16_t>(low + (low & 1));
    ASSERT_EQ(FloatToF16(middle), even) << low;
    ASSERT_EQ(FloatToF16(std::nextafter(middle, 0.0f)), low);
    ASSERT_EQ(FloatToF16(std::nextafter(middle, b)), low + 1);
    ASSERT_EQ(FloatToF16(-middle), even | 0x8000);
  }
  for (uint32_t low = 0x0080; low < 0x7f7f; ++low) {
    const float middle = std::bit_cast<float>((low << 16) + 0x8000u);
    ASSERT_EQ(FloatToBF16(middle), low + (low & 1)) << low;
    ASSERT_EQ(FloatToBF16(std::bit_cast<float>((low << 16) + 0x7fffu)), low);
    ASSERT_EQ(FloatToBF16(std::bit_cast<float>((low << 16) + 0x8001u)), low + 1);
  }
}

TEST(HalfTest, WhatIsTooLargeForAHalfIsInfinite) {
  EXPECT_EQ(FloatToF16(65519.996f), 0x7bff);
  EXPECT_EQ(FloatToF16(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToF16(-1e30f), 0xfc00);
  EXPECT_EQ(FloatToBF16(std::numeric_limits<float>::max()), 0x7f80);
}

}  // namespace
}  // namespace lwq
