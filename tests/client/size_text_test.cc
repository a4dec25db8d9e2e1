#include "client/size_text.h"

#include "gtest/gtest.h"

namespace lwq::client {
namespace {

TEST(SizeTextTest, BytesKeepThreeDigitsAndNeverReachAThousand) {
  EXPECT_EQ(FormatBytes(0), "0 bytes");
  EXPECT_EQ(FormatBytes(999), "999 bytes");
  EXPECT_EQ(FormatBytes(1000), "1.00 kB");
  EXPECT_EQ(FormatBytes(999'949), "1.00 MB");
  EXPECT_EQ(FormatBytes(5'200'000), "5.20 MB");
  EXPECT_EQ(FormatBytes(52'340'000), "52.3 MB");
}

TEST(SizeTextTest, CountsHaveSeparators) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(-123456), "-123,456");
}

TEST(SizeTextTest, Seconds) {
  EXPECT_EQ(FormatSeconds(0.42), "0.4s");
  EXPECT_EQ(FormatSeconds(59.6), "1m00s");
  EXPECT_EQ(FormatSeconds(185), "3m05s");
  EXPECT_EQ(FormatSeconds(7620), "2h07m");
  EXPECT_EQ(FormatSeconds(-1), "-");
}

TEST(SizeTextTest, ShareOfNothingIsADash) {
  EXPECT_EQ(FormatShare(997, 1000), "99.7%");
  EXPECT_EQ(FormatShare(1, 0), "-");
}

TEST(SizeTextTest, EstimatesAreAsRoughAsTheyAreKnown) {
  EXPECT_EQ(FormatEstimate(0), "a few seconds");
  EXPECT_EQ(FormatEstimate(7), "a few seconds");
  EXPECT_EQ(FormatEstimate(38), "about 40 s");
  EXPECT_EQ(FormatEstimate(58), "about 1 min");
  EXPECT_EQ(FormatEstimate(170), "about 3 min");
  EXPECT_EQ(FormatEstimate(3599), "about 1 h");
  EXPECT_EQ(FormatEstimate(7800), "about 2 h 10 min");
  EXPECT_EQ(FormatEstimate(-5), "a few seconds");
}

}  // namespace
}  // namespace lwq::client
