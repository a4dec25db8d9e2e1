#include "base/decimal.h"

#include <limits>

#include "gtest/gtest.h"

namespace lwq {
namespace {

TEST(DecimalTest, MultipliesExactlyAndRoundsDown) {
  EXPECT_EQ(Decimal::Parse("2.3")->FloorTimes(80, 8), 23);  // the double 2.3 gives 22
  EXPECT_EQ(Decimal::Parse("3.1")->FloorTimes(int64_t{1} << 56, 8), 27922317689697075);
  EXPECT_EQ(Decimal::Parse("0.00000000000000000000001")->FloorTimes(1), 0);
  EXPECT_EQ(Decimal::Parse("999999999999999999999999")->FloorTimes(1),
            std::numeric_limits<int64_t>::max());
}

TEST(DecimalTest, TakesPlainDecimalsOnly) {
  for (const char* text : {"", ".", ".5", "5.", "1.2.3", "-1", "+1", "1e3", " 1", "nan",
                           "1234567890123456789012345"}) {
    EXPECT_FALSE(Decimal::Parse(text).has_value()) << text;
  }
  EXPECT_FALSE(Decimal::Of(-1).has_value());
  EXPECT_FALSE(Decimal::Of(std::numeric_limits<double>::infinity()).has_value());
  EXPECT_FALSE(Decimal::Of(std::numeric_limits<double>::quiet_NaN()).has_value());
}

TEST(DecimalTest, TheDecimalOfADoubleIsTheOneThatWasWritten) {
  EXPECT_EQ(ShortestDecimal(2.3), "2.3");
  EXPECT_EQ(Decimal::Of(2.3)->FloorTimes(80, 8), 23);
}

}  // namespace
}  // namespace lwq
