// A worker whose tasks crash: it lives on, and what happened is told.
#include <signal.h>

#include <filesystem>
#include <fstream>

#include "absl/time/clock.h"
#include "client/process.h"
#include "gmock/gmock.h"
#include "tests/cluster/cli.h"
#include "tests/testing/memory_group.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class TaskChildTest : public CliTest {
 protected:
  void SetUp() override {
#ifdef NDEBUG
    GTEST_SKIP() << "this build has no failpoints";
#endif
    CliTest::SetUp();
  }
  void TearDown() override {
    ::unsetenv("LWQ_FAILPOINTS");
    for (pid_t pid : {worker_, server_}) {
      if (pid > 0) ::kill(pid, SIGKILL);
      if (pid > 0) ::waitpid(pid, nullptr, 0);
    }
  }
  void Start(const std::string& failpoints) {
    const std::string address = "unix:" + File("s");
    server_ =
        Process({LWQ_BIN_DIR "/lwq-server", "--listen", address, "--data-dir", File("server")},
                "server.log");
    ::setenv("LWQ_FAILPOINTS", failpoints.c_str(), 1);
    worker_ = Process({LWQ_BIN_DIR "/lwq-worker", "--server", address, "--threads", "1",
                       "--work-dir", File("worker"), "--worker-id", "w"},
                      "worker.log");
    ::unsetenv("LWQ_FAILPOINTS");
    server_flag_ = " --server " + address;
  }
  pid_t Process(const std::vector<std::string>& argv, const std::string& log) {
    const absl::StatusOr<pid_t> pid =
        client::StartProcess({.argv = argv, .log_path = File(log), .die_with_parent = true});
    EXPECT_OK(pid);
    return pid.value_or(0);
  }
  // Until it goes well, while the server and the worker come up.
  CliAnswer Ask(const std::string& words) {
    CliAnswer answer = Lwqctl(words + server_flag_);
    for (int i = 0; i < 100 && answer.code != 0; ++i) {
      absl::SleepFor(absl::Milliseconds(100));
      answer = Lwqctl(words + server_flag_);
    }
    return answer;
  }
  // 0: it has none.
  static pid_t FindChildOf(pid_t parent) {
    pid_t child = 0;
    for (const auto& thread :
         std::filesystem::directory_iterator(absl::StrCat("/proc/", parent, "/task"))) {
      std::ifstream children(thread.path() / "children");
      if (children >> child) return child;
    }
    return 0;
  }
  bool WorkerLives() const { return ::waitpid(worker_, nullptr, WNOHANG) == 0; }
  std::string Log() const { return ReadFile(File("worker.log"), 16 << 20).value_or(""); }

  pid_t server_ = 0, worker_ = 0;
  std::string server_flag_;
};

// Each process does two tasks, and ends at its third.
TEST_F(TaskChildTest, AJobWhoseTasksCrashNowAndThenSucceeds) {
  Start("child.task_begun=segv:3");
  const CliAnswer added = Ask("model add " + SampleModelPath() + " --id m");
  ASSERT_EQ(added.code, 0) << added.err;
  const CliAnswer job = Lwqctl(
      "submit m --budget 4.5bpw --method rtn --scorer lim --allocator two-level --no-eval"
      " --calibration " +
      SampleModelPath() + "/held-out.txt --calibration-tokens 512 --job-id j" + server_flag_);
  ASSERT_EQ(job.code, 0) << job.err;
  const CliAnswer watched = Lwqctl("watch j" + server_flag_);
  EXPECT_EQ(watched.code, 0) << watched.err;
  EXPECT_THAT(watched.err, HasSubstr("-> SUCCEEDED"));
  EXPECT_TRUE(WorkerLives());
  EXPECT_THAT(Log(), HasSubstr("TASK_CRASHED"));
  EXPECT_THAT(Log(), HasSubstr("signal 11 (Segmentation fault)"));
}

// Once, in the middle of its work: the kernel takes the task's process and leaves the worker.
TEST_F(TaskChildTest, AJobWhoseTaskIsKilledForMemorySucceeds) {
  MemoryGroup group(1 << 20);
  if (!group.exists()) GTEST_SKIP() << "no control group can be made here";
  Start("");
  const CliAnswer added = Ask("model add " + SampleModelPath() + " --id m");
  ASSERT_EQ(added.code, 0) << added.err;
  const pid_t child = FindChildOf(worker_);
  ASSERT_GT(child, 0);
  ASSERT_TRUE(group.Add(child));
  const CliAnswer job = Lwqctl(
      "submit m --budget 4.5bpw --method rtn --scorer lim --allocator two-level --no-eval"
      " --calibration " +
      SampleModelPath() + "/held-out.txt --calibration-tokens 512 --job-id j" + server_flag_);
  ASSERT_EQ(job.code, 0) << job.err;
  const CliAnswer watched = Lwqctl("watch j" + server_flag_);
  EXPECT_EQ(watched.code, 0) << watched.err;
  EXPECT_TRUE(WorkerLives());
  EXPECT_NE(FindChildOf(worker_), child);
  EXPECT_THAT(Log(), HasSubstr("HOST_OOM"));
  EXPECT_THAT(Log(), Not(HasSubstr("TASK_CRASHED")));
}

TEST_F(TaskChildTest, OneThatAlwaysCrashesFailsItsModelWithTheReason) {
  Start("child.task_begun=segv");
  ASSERT_EQ(Ask("workers").code, 0);
  const CliAnswer added = Lwqctl("model add " + SampleModelPath() + " --id m" + server_flag_);
  EXPECT_NE(added.code, 0);
  EXPECT_THAT(added.err + added.out, HasSubstr("TASK_CRASHED"));
  EXPECT_TRUE(WorkerLives());
}

}  // namespace
}  // namespace lwq::testing
