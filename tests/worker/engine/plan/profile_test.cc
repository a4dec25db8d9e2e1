#include "worker/engine/plan/profile.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<int> Bits(const std::vector<UnitFormat>& formats) {
  std::vector<int> bits;
  for (const UnitFormat& f : formats) bits.push_back(f.bits);
  return bits;
}

TEST(ProfileTest, KnowsPortableAndLowBit) {
  LWQ_ASSERT_OK_AND_ASSIGN(const ProfileDef* portable, FindProfile("portable"));
  EXPECT_EQ(portable->bits, (std::vector<int>{4, 8}));
  LWQ_ASSERT_OK_AND_ASSIGN(const ProfileDef* low, FindProfile("vllm-lowbit"));
  EXPECT_EQ(low->bits, (std::vector<int>{2, 3, 4, 8}));
  EXPECT_EQ(low->group_sizes, (std::vector<int64_t>{32, 64, 128, 0}));
  EXPECT_THAT(FindProfile("gguf2"),
              FailsWith("PROFILE_UNKNOWN", AllOf(HasSubstr("portable"), HasSubstr("vllm-lowbit"))));
}

TEST(ProfileTest, MakesFormatsInOrderOnceEach) {
  const ProfileDef& low = **FindProfile("vllm-lowbit");
  LWQ_ASSERT_OK_AND_ASSIGN(const auto all, FormatsFor(low, {}, 64, false));
  EXPECT_EQ(Bits(all), (std::vector<int>{2, 3, 4, 8}));
  EXPECT_EQ(all[0], (UnitFormat{2, 64, false}));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto some, FormatsFor(low, {16, 8, 3, 8}, 0, true));
  EXPECT_EQ(Bits(some), (std::vector<int>{3, 8, 16}));
  EXPECT_TRUE(some.back().dense());
}

TEST(ProfileTest, RefusesWidthsAndGroupsThatTheEngineLacks) {
  const ProfileDef& portable = **FindProfile("portable");
  EXPECT_THAT(FormatsFor(portable, {3}, 128, true),
              FailsWith("BITS_UNSUPPORTED", AllOf(HasSubstr("3 bits"), HasSubstr("4, 8"))));
  EXPECT_THAT(FormatsFor(portable, {4}, 96, true),
              FailsWith("GROUP_SIZE", AllOf(HasSubstr("96"), HasSubstr("channel"))));
  EXPECT_THAT(FormatsFor(portable, {4}, -128, true), FailsWith("GROUP_SIZE", HasSubstr("-128")));
  EXPECT_THAT(FormatsFor(portable, {0}, 128, true), FailsWith("BITS_UNSUPPORTED", HasSubstr("0")));
}

}  // namespace
}  // namespace lwq
