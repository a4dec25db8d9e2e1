// Vector kernels against the plain functions that they are to equal bit for bit; what they have in
// common with other devices is tested in tests/conformance.
#include "worker/engine/device/cpu/cpu_kernels.h"

#include <bit>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

TEST(CpuKernels, RoundToBF16EqualsTheScalarForEveryKindOfNumber) {
  std::vector<uint32_t> patterns = {
      0x00000000, 0x80000000, 0x7f800000, 0xff800000,  // 0, infinities
      0x7fc00000, 0x7f800001, 0xffffffff, 0x7f80ffff,  // NaNs
      0x3f808000, 0x3f818000, 0x3f807fff, 0x3f808001,  // ties, beside
      0x7f7fffff, 0x00000001, 0x0000ffff, 0x80008000};
  std::mt19937 random(1);
  for (int i = 0; i < 1000; ++i) patterns.push_back(static_cast<uint32_t>(random()));
  std::vector<float> x;
  for (uint32_t bits : patterns) x.push_back(std::bit_cast<float>(bits));
  for (const size_t n : {x.size(), size_t{1}, size_t{15}, size_t{17}, size_t{33}}) {
    std::vector<uint16_t> out(n + 1, 0xabcd);
    RoundToBF16Row(x.data(), static_cast<int64_t>(n), out.data());
    for (size_t i = 0; i < n; ++i) {
      EXPECT_EQ(out[i], FloatToBF16(x[i])) << std::hex << patterns[i];
    }
    EXPECT_EQ(out[n], 0xabcd) << "nothing is written past " << n;
  }
}

}  // namespace
}  // namespace lwq
