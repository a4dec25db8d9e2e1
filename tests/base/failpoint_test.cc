#include "base/failpoint.h"

#include <stdlib.h>

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::testing::HasSubstr;

TEST(FailpointTest, ATextNamesPointsAndWhatHappensThere) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto actions, ParseFailpoints("a.b=crash;c=crash:3;d=delay:40ms"));
  ASSERT_EQ(actions.size(), 3u);
  EXPECT_EQ(actions.at("a.b").crash_at, 1);
  EXPECT_EQ(actions.at("c").crash_at, 3);
  EXPECT_EQ(actions.at("d").crash_at, 0);
  EXPECT_EQ(actions.at("d").delay, absl::Milliseconds(40));
  EXPECT_EQ(ParseFailpoints("a=segv")->at("a").segv_at, 1);
  EXPECT_EQ(ParseFailpoints("a=segv:2")->at("a").segv_at, 2);
  EXPECT_TRUE(ParseFailpoints("")->empty());
  for (const char* bad :
       {"a", "a=", "=crash", "a=crash:0", "a=crash:x", "a=segv:", "a=delay:soon", "a=fail"}) {
    EXPECT_THAT(std::string(ParseFailpoints(bad).status().message()), HasSubstr(bad));
  }
}

// In a process of its own, which the point ends.
TEST(FailpointDeathTest, TheProcessEndsAtTheTimeThatWasAskedFor) {
#ifdef NDEBUG
  GTEST_SKIP() << "this build has no failpoints";
#endif
  const auto pass = [](int times) {
    ::setenv("LWQ_FAILPOINTS", "here=crash:3", 1);
    for (int i = 0; i < times; ++i) {
      Failpoint("here");
      Failpoint("elsewhere");
    }
    ::_exit(0);
  };
  EXPECT_EXIT(pass(2), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(pass(3), ::testing::ExitedWithCode(kFailpointExit), "");
}

}  // namespace
}  // namespace lwq
