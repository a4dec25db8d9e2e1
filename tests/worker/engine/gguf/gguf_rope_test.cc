#include "worker/engine/gguf/gguf_rope.h"

#include <cmath>

#include "gtest/gtest.h"

namespace lwq {
namespace {

// llama.cpp's converter, from its source: a divisor for each pair.
std::vector<float> Divisors(double theta, int head_dim, double factor, double low, double high,
                            double original) {
  std::vector<float> divisors;
  for (int i = 0; i < head_dim; i += 2) {
    const double wavelength = 2 * M_PI * std::pow(theta, static_cast<double>(i) / head_dim);
    if (wavelength < original / high) {
      divisors.push_back(1);
    } else if (wavelength > original / low) {
      divisors.push_back(static_cast<float>(factor));
    } else {
      const double smooth = (original / wavelength - low) / (high - low);
      divisors.push_back(static_cast<float>(1 / ((1 - smooth) / factor + smooth)));
    }
  }
  return divisors;
}

TEST(GgufRopeTest, Llama3IsFoundFromItsDivisors) {
  struct Case {
    double factor, low, high, original;
  };
  // Llama 3.1, 3.2, and two that nobody published.
  for (const Case& c :
       {Case{8, 1, 4, 8192}, Case{32, 1, 4, 8192}, Case{5, 1, 9, 2000}, Case{8, 1, 4, 64}}) {
    const std::vector<float> divisors = Divisors(500000, 128, c.factor, c.low, c.high, c.original);
    const auto rope = Llama3RopeOf(divisors, 500000, 128);
    ASSERT_TRUE(rope.has_value()) << c.factor << " " << c.original;
    EXPECT_EQ(rope->factor, c.factor);
    EXPECT_EQ(rope->low_freq_factor, c.low);
    EXPECT_NEAR(rope->high_freq_factor, c.high, 1e-3);
    // Fewer pairs between the two say it less exactly; the divisors are compared in the function.
    EXPECT_NEAR(static_cast<double>(rope->original_max_positions), c.original, c.original * 1e-3);
  }
}

// A head so small that one pair alone lies between long waves and short ones.
TEST(GgufRopeTest, OnePairBetweenIsEnough) {
  const std::vector<float> divisors = Divisors(1000, 8, 8, 1, 4, 24);
  const auto rope = Llama3RopeOf(divisors, 1000, 8);
  ASSERT_TRUE(rope.has_value());
  EXPECT_EQ(rope->factor, 8);
  EXPECT_EQ(rope->original_max_positions, 24);
}

TEST(GgufRopeTest, OtherDivisorsAreNot) {
  std::vector<float> divisors = Divisors(500000, 128, 8, 1, 4, 8192);
  EXPECT_FALSE(Llama3RopeOf(divisors, 10000, 128).has_value()) << "of another base";
  EXPECT_FALSE(Llama3RopeOf(divisors, 500000, 64).has_value()) << "of another head";
  divisors[30] *= 1.001f;
  EXPECT_FALSE(Llama3RopeOf(divisors, 500000, 128).has_value());
  EXPECT_FALSE(Llama3RopeOf(std::vector<float>(64, NAN), 500000, 128).has_value());
  EXPECT_FALSE(Llama3RopeOf(std::vector<float>(64, INFINITY), 500000, 128).has_value());
  EXPECT_FALSE(Llama3RopeOf(std::vector<float>(64, 0), 500000, 128).has_value());
}

}  // namespace
}  // namespace lwq
