#include "base/log.h"

#include "gtest/gtest.h"

namespace lwq {
namespace {

TEST(LogSafeTest, ControlCharactersAreWrittenOutAndQuotesStay) {
  EXPECT_EQ(LogSafe("tensor \"a\\b\"\n\x1b[31m"), "tensor \"a\\b\"\\x0a\\x1b[31m");
}

TEST(LogSafeTest, TwiceIsAsOnce) {
  const std::string once = LogSafe("a\tb \"c\" \\d");
  EXPECT_EQ(LogSafe(once), once);
}

TEST(LogSafeTest, LongTextIsCut) { EXPECT_EQ(LogSafe(std::string(5000, 'x')).size(), 2003u); }

}  // namespace
}  // namespace lwq
