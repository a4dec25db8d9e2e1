#include "base/byte_size.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

TEST(ByteSizeTest, ReadsAndWrites) {
  const struct {
    const char* text;
    int64_t bytes;
    const char* written;
  } cases[] = {{"1", 1, "1"},
               {"1B", 1, "1"},
               {"4 GiB", int64_t{4} << 30, "4GiB"},
               {"1.5gb", 1'500'000'000, "1500MB"},
               {"0.1KiB", 102, "102"},
               {"7MB", 7'000'000, "7MB"}};
  for (const auto& c : cases) {
    LWQ_ASSERT_OK_AND_ASSIGN(const int64_t bytes, ParseByteSize(c.text));
    EXPECT_EQ(bytes, c.bytes) << c.text;
    EXPECT_EQ(FormatByteSize(bytes), c.written);
  }
}

TEST(ByteSizeTest, RefusesAndSaysWhy) {
  EXPECT_THAT(ParseByteSize(""), FailsWith("SIZE_INVALID", HasSubstr("no number")));
  EXPECT_THAT(ParseByteSize("0"), FailsWith("SIZE_INVALID", HasSubstr("less than one byte")));
  EXPECT_THAT(ParseByteSize("1.5"), FailsWith("SIZE_INVALID", HasSubstr("no fraction")));
  EXPECT_THAT(ParseByteSize("5M"), FailsWith("SIZE_INVALID", HasSubstr("\"M\" is no unit")));
  EXPECT_THAT(ParseByteSize("1,5GB"), FailsWith("SIZE_INVALID", HasSubstr("write 1.5")));
  EXPECT_THAT(ParseByteSize("9223372036854775807"), FailsWith("SIZE_INVALID", HasSubstr("large")));
  EXPECT_THAT(ParseByteSize("99999999TiB"), FailsWith("SIZE_INVALID", HasSubstr("too large")));
}

}  // namespace
}  // namespace lwq
