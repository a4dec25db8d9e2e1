#include "client/supervisor.h"

#include <signal.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "client/file_lock.h"
#include "client/process.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

class SupervisorTest : public ::testing::Test {
 protected:
  SupervisorTest() : directory_(*TempDirectory::Create()) {
    options_.first_backoff = absl::Milliseconds(1);
    options_.longest_backoff = absl::Milliseconds(5);
    options_.poll = absl::Milliseconds(2);
  }
  std::string File(const std::string& name) { return JoinPath(directory_.path(), name); }
  ChildSpec Shell(const std::string& script) {
    return {.name = "the child", .argv = {"/bin/sh", "-c", script}, .log_path = File("log")};
  }
  // Lines of a file that children append to.
  int Lines(const std::string& name) {
    const absl::StatusOr<std::string> text = ReadFile(File(name), 1 << 20);
    return text.ok() ? static_cast<int>(std::count(text->begin(), text->end(), '\n')) : 0;
  }

  TempDirectory directory_;
  SupervisorOptions options_;
};

TEST_F(SupervisorTest, AKilledChildIsStartedAgain) {
  options_.quick = absl::ZeroDuration();  // no death counts as quick
  options_.wanted = [&] { return Lines("starts") < 4; };
  Supervisor supervisor(options_,
                        {Shell(absl::StrCat("echo start >> ", File("starts"), "; kill -9 $$"))});
  EXPECT_OK(supervisor.Run());
  EXPECT_GE(Lines("starts"), 4);
}

TEST_F(SupervisorTest, QuickDeathsInARowAreGivenUpWithTheLog) {
  options_.most_quick_deaths = 3;
  Supervisor supervisor(
      options_, {Shell(absl::StrCat("echo start >> ", File("starts"), "; echo no disk; exit 5"))});
  EXPECT_THAT(supervisor.Run(),
              FailsWith("CHILD_DIED",
                        ::testing::AllOf(HasSubstr("exited with status 5"), HasSubstr("no disk"))));
  EXPECT_EQ(Lines("starts"), 3);
}

TEST_F(SupervisorTest, ARefusedConfigurationIsNotTriedAgain) {
  Supervisor supervisor(options_,
                        {Shell(absl::StrCat("echo start >> ", File("starts"), "; exit 78"))});
  EXPECT_THAT(supervisor.Run(), FailsWith("CHILD_DIED", HasSubstr("status 78")));
  EXPECT_EQ(Lines("starts"), 1);
}

TEST_F(SupervisorTest, StopsInReverseOrderAndKillsTheStubborn) {
  options_.stop_grace = absl::Seconds(2);  // for a shell that ends, on a busy machine too
  ChildSpec first =
      Shell(absl::StrCat("trap 'echo first >> ", File("ends"), "; exit 0' TERM; echo > ",
                         File("ready"), "; while :; do sleep 0.02; done"));
  ChildSpec second =
      Shell(absl::StrCat("trap 'echo second >> ", File("ends"), "; exit 0' TERM; echo > ",
                         File("ready2"), "; while :; do sleep 0.02; done"));
  second.start_after = File("ready");
  ChildSpec stubborn = Shell(
      absl::StrCat("trap '' TERM; echo > ", File("ready3"), "; while :; do sleep 0.02; done"));
  stubborn.start_after = File("ready2");
  options_.wanted = [&] { return !FileExists(File("ready3")); };
  Supervisor supervisor(options_, {first, second, stubborn});
  EXPECT_OK(supervisor.Run());
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string ends, ReadFile(File("ends"), 100));
  EXPECT_EQ(ends, "second\nfirst\n");
}

TEST_F(SupervisorTest, AMissingProgramIsSaid) {
  Supervisor supervisor(options_, {{.name = "x", .argv = {File("none")}, .log_path = File("log")}});
  EXPECT_THAT(supervisor.Run(), FailsWith("PROGRAM_NOT_FOUND", HasSubstr("none")));
}

TEST(LogTailTest, WholeLinesOfTheEnd) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  const std::string path = JoinPath(directory.path(), "log");
  ASSERT_OK(WriteFileAtomically(path, "first line\nsecond\nthird\n"));
  EXPECT_EQ(LogTail(path, 100), "first line\nsecond\nthird");
  EXPECT_EQ(LogTail(path, 15), "second\nthird");
  EXPECT_EQ(LogTail(path + "x", 15), "");
}

TEST(FileLockTest, ExclusiveExcludesAndGoesWithItsHolder) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  const std::string path = JoinPath(directory.path(), "lock");
  EXPECT_FALSE(FileLock::IsHeld(path));
  {
    LWQ_ASSERT_OK_AND_ASSIGN(
        const auto shared, FileLock::Acquire(path, FileLock::Mode::kShared, absl::ZeroDuration()));
    EXPECT_FALSE(FileLock::IsHeld(path));
    EXPECT_THAT(FileLock::Acquire(path, FileLock::Mode::kExclusive, absl::Milliseconds(1)),
                FailsWith("LOCK_HELD", HasSubstr("lock")));
    EXPECT_OK(FileLock::Acquire(path, FileLock::Mode::kShared, absl::ZeroDuration()));
  }
  LWQ_ASSERT_OK_AND_ASSIGN(
      const auto alone, FileLock::Acquire(path, FileLock::Mode::kExclusive, absl::ZeroDuration()));
  EXPECT_TRUE(FileLock::IsHeld(path));
}

}  // namespace
}  // namespace lwq::client
