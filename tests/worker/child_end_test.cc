#include "worker/child_end.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::HasSubstr;

int StatusOf(int signal, int code) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::signal(signal, SIG_DFL);
    if (signal != 0) ::raise(signal);
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return status;
}

TEST(ChildEndTest, AKillIsForMemoryWhereTheKernelKilledForIt) {
  const int killed = StatusOf(SIGKILL, 0);
  EXPECT_THAT(FailureOfEnd(killed, 4, 5), FailsWith("HOST_OOM", HasSubstr("no memory left")));
  EXPECT_THAT(FailureOfEnd(killed, 4, 4), FailsWith("TASK_CRASHED", HasSubstr("signal 9")));
  EXPECT_THAT(FailureOfEnd(killed, -1, -1), FailsWith("TASK_CRASHED", HasSubstr("signal 9")));
  // Another's end meanwhile says nothing of this one's.
  EXPECT_THAT(FailureOfEnd(StatusOf(SIGSEGV, 0), 4, 5),
              FailsWith("TASK_CRASHED", HasSubstr("signal 11 (Segmentation fault)")));
  EXPECT_THAT(FailureOfEnd(StatusOf(0, 85), 4, 4),
              FailsWith("TASK_CRASHED", HasSubstr("ended with code 85")));
}

TEST(ChildEndTest, TheKernelTellsHowManyItKilled) {
  if (NumOomKills() < 0) GTEST_SKIP() << "this system does not tell";
  EXPECT_LE(NumOomKills(), NumOomKills());
}

}  // namespace
}  // namespace lwq::testing
