// Several commands that wait for one job. flock(2) tells open files apart, not processes, so one
// process can play them all.
#include "client/following.h"

#include <optional>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

class FollowingTest : public ::testing::Test {
 protected:
  const std::string& run() const { return directory_.path(); }
  bool Cancel(Following* following) {
    return following->End([this] { ++cancelled_; });
  }
  bool IsFollowed(const std::string& request) {
    return !UnlessFollowed(run(), request, [] {});
  }

  const TempDirectory directory_ = *TempDirectory::Create();
  int cancelled_ = 0;
};

TEST_F(FollowingTest, TheLastOneCancels) {
  Following first(run(), "a");
  Following second(run(), "a");
  Following other(run(), "b");
  EXPECT_FALSE(Cancel(&first));
  EXPECT_EQ(cancelled_, 0);
  EXPECT_TRUE(Cancel(&second));
  EXPECT_EQ(cancelled_, 1);
  EXPECT_FALSE(Cancel(&second)) << "it has ended";
  EXPECT_TRUE(IsFollowed("b"));
}

TEST_F(FollowingTest, NobodyBeginsToWaitWhileTheLastOneCancels) {
  Following last(run(), "a");
  bool was_followed = false;
  EXPECT_TRUE(last.End([&] { was_followed = IsFollowed("a"); }));
  EXPECT_TRUE(was_followed) << "the lock was given up before the job was cancelled";
  EXPECT_FALSE(IsFollowed("a"));
}

TEST_F(FollowingTest, OneThatWaitedForALockThatIsRemovedGetsAnother) {
  std::optional<Following> next;
  std::thread waits;
  Following last(run(), "a");
  EXPECT_TRUE(last.End([&] {
    waits = std::thread([&] { next.emplace(run(), "a"); });
    absl::SleepFor(absl::Milliseconds(200));  // it waits for the lock of the file that goes
  }));
  waits.join();
  EXPECT_TRUE(IsFollowed("a"));
  EXPECT_TRUE(Cancel(&*next));
}

TEST_F(FollowingTest, WithoutALockNothingIsCancelled) {
  Following nowhere(JoinPath(run(), "no-such-directory"), "a");
  EXPECT_FALSE(Cancel(&nowhere));
  EXPECT_FALSE(UnlessFollowed(JoinPath(run(), "no-such-directory"), "a", [this] { ++cancelled_; }));
  EXPECT_EQ(cancelled_, 0);
}

TEST_F(FollowingTest, NothingIsLeftAndALabelIsNoPath) {
  { const Following one(run(), "../../outside"); }
  LWQ_ASSERT_OK_AND_ASSIGN(const auto left, ListDirectory(run()));
  EXPECT_TRUE(left.empty());
}

}  // namespace
}  // namespace lwq::client
