// lwqctl up and down over a stand-in for the server: the real lwqctl, its supervisor process and
// its locks. The programs are copied into a folder of the test's own, because lwqctl looks for its
// sisters beside itself.
#include "client/embedded.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "client/client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/small_disk.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::testing::HasSubstr;

struct Answer {
  int code;
  std::string out;
  std::string err;
};

class EmbeddedTest : public ::testing::Test {
 protected:
  EmbeddedTest() : directory_(*TempDirectory::Create()) {
    Copy("lwqctl", "lwqctl");
    Copy("fake-lwq-server", "lwq-server");
    Copy("fake-lwq-server", "lwq-worker");
  }
  ~EmbeddedTest() override { Lwqctl("down --force"); }

  void Copy(const std::string& from, const std::string& to) {
    std::filesystem::copy_file(JoinPath(LWQ_BIN_DIR, from), File(to));
  }
  std::string File(const std::string& name) const { return JoinPath(directory_.path(), name); }
  std::string data() const { return File(data_name_); }

  Answer Lwqctl(const std::string& words) const {
    const std::string stem =
        File(absl::StrCat("answer-", std::hash<std::thread::id>()(std::this_thread::get_id())));
    const int status = std::system(absl::StrCat("exec ", File("lwqctl"), " ", words, " --data-dir ",
                                                data(), " >", stem, ".out 2>", stem, ".err")
                                       .c_str());
    return {WEXITSTATUS(status), ReadFile(stem + ".out", 1 << 20).value_or(""),
            ReadFile(stem + ".err", 1 << 20).value_or("")};
  }

  // The server's process, or 0 when it does not answer.
  int ServerPid() const {
    ClientOptions options;
    options.address = EmbeddedPaths::Of(data())->address;
    options.call_timeout = absl::Seconds(20);
    options.retry_for = absl::ZeroDuration();
    const absl::StatusOr<v1::ServerInfo> info = Client(options).GetServerInfo();
    return info.ok() ? info->server_pid() : 0;
  }

  TempDirectory directory_;
  std::string data_name_ = "data";
};

TEST_F(EmbeddedTest, UpIsReusedAndDownStopsEverything) {
  const Answer first = Lwqctl("up");
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("started"));
  const int pid = ServerPid();
  ASSERT_GT(pid, 0);
  EXPECT_THAT(Lwqctl("up").out, HasSubstr("already running"));
  EXPECT_EQ(ServerPid(), pid);
  EXPECT_EQ(Lwqctl("down").code, 0);
  EXPECT_NE(::kill(pid, 0), 0);
  const Answer again = Lwqctl("down");
  EXPECT_EQ(again.code, 3);
  EXPECT_THAT(again.err, HasSubstr("NOT_RUNNING"));
}

TEST_F(EmbeddedTest, ADownThatIsRefusedDoesNotHappenLaterEither) {
  ASSERT_EQ(Lwqctl("up").code, 0);
  const int pid = ServerPid();
  ASSERT_GT(pid, 0);
  LWQ_ASSERT_OK_AND_ASSIGN(std::unique_ptr<Embedded> follower, Embedded::Start(data(), {}, {}));
  const Answer refused = Lwqctl("down");
  EXPECT_EQ(refused.code, 8);
  EXPECT_THAT(refused.err, HasSubstr("IN_USE"));
  EXPECT_TRUE(follower->is_kept());
  follower.reset();
  // The supervisor looks twenty times a second whether anybody wants the pair.
  absl::SleepFor(absl::Seconds(1));
  EXPECT_EQ(ServerPid(), pid);
  EXPECT_EQ(Lwqctl("down").code, 0);
}

TEST_F(EmbeddedTest, ConcurrentUpsStartOnePair) {
  std::vector<std::thread> threads;
  std::vector<Answer> answers(4);
  for (Answer& answer : answers) threads.emplace_back([&] { answer = Lwqctl("up"); });
  for (std::thread& thread : threads) thread.join();
  int started = 0;
  for (const Answer& answer : answers) {
    EXPECT_EQ(answer.code, 0) << answer.err;
    started += absl::StartsWith(answer.out, "started") ? 1 : 0;
  }
  EXPECT_EQ(started, 1);
}

TEST_F(EmbeddedTest, AKilledServerIsStartedAgain) {
  ASSERT_EQ(Lwqctl("up").code, 0);
  const int pid = ServerPid();
  ASSERT_GT(pid, 0);
  ::kill(pid, SIGKILL);
  // The first restart comes after 0.2 s; a minute allows for a machine that does other things.
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  int now = 0;
  while ((now = ServerPid()) == 0 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(20));
  EXPECT_GT(now, 0);
  EXPECT_NE(now, pid);
}

TEST_F(EmbeddedTest, WithoutKeepThePairGoesWithItsLastUser) {
  // As after a command that was killed: nobody holds the lock, and nobody asked to keep the pair.
  ASSERT_EQ(Lwqctl("up").code, 0);
  const int pid = ServerPid();
  LWQ_ASSERT_OK_AND_ASSIGN(const EmbeddedPaths paths, EmbeddedPaths::Of(data()));
  ASSERT_OK(RemoveAll(paths.keep_file));
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  while (IsEmbeddedRunning(paths) && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(20));
  EXPECT_FALSE(IsEmbeddedRunning(paths));
  EXPECT_NE(::kill(pid, 0), 0);
}

TEST_F(EmbeddedTest, APairThatCannotStartSaysWhy) {
  ASSERT_OK(WriteFileAtomically(File("refuse"), ""));
  const Answer answer = Lwqctl("up");
  EXPECT_EQ(answer.code, 8);
  EXPECT_THAT(answer.err, HasSubstr("EMBEDDED_STOPPED"));
  EXPECT_THAT(answer.err, HasSubstr("the server exited with status 78"));
}

TEST_F(EmbeddedTest, WithoutRoomToStartItIsStorageThatIsMissing) {
  ASSERT_OK(MakeDirectories(data()));
  const lwq::testing::SmallDisk disk(data(), 256 << 10);
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a disk of its own";
  const Answer answer = Lwqctl("up");
  EXPECT_EQ(answer.code, 7);
  EXPECT_THAT(answer.err, HasSubstr("STORAGE_FULL: the disk of the data directory " + data()));
}

TEST_F(EmbeddedTest, ALongDataDirectoryGetsAShortSocket) {
  data_name_ = std::string(120, 'd');
  LWQ_ASSERT_OK_AND_ASSIGN(const EmbeddedPaths paths, EmbeddedPaths::Of(data()));
  EXPECT_LE(paths.socket.size(), 107u);
  const Answer answer = Lwqctl("up");
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_GT(ServerPid(), 0);
}

TEST_F(EmbeddedTest, QuantizeRefusesAnOutputInUseBeforeAnythingStarts) {
  ASSERT_OK(MakeDirectories(File("out")));
  ASSERT_OK(WriteFileAtomically(File("out/mine"), "x"));
  const Answer answer =
      Lwqctl(absl::StrCat("quantize ", File("out"), " --budget 3bpw --out ", File("out")));
  EXPECT_EQ(answer.code, 8);
  EXPECT_THAT(answer.err, HasSubstr("OUTPUT_EXISTS"));
  EXPECT_FALSE(FileExists(data()));
}

}  // namespace
}  // namespace lwq::client
