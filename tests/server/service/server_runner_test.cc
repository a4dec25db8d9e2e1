// Two lwq-server processes on one PostgreSQL: the one that leads dies or stops, the other takes
// over.
#include "server/service/server_runner.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/rpc/channel.h"
#include "base/rpc/grpc_status.h"
#include "gtest/gtest.h"
#include "proto/lwq/v1/admin_service.grpc.pb.h"
#include "server/store/postgres_store.h"
#include "tests/testing/held_port.h"
#include "tests/testing/postgres_cluster.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::HeldPort;
using ::lwq::testing::PostgresCluster;

// A server process; its ready file says when it leads.
class Process {
 public:
  // `store_wait`: seconds for which the store is waited for at the start.
  Process(const std::string& folder, const std::string& store, int port,
          const std::string& store_wait = "60")
      : folder_(folder),
        address_(absl::StrCat("127.0.0.1:", port)),
        store_(store),
        store_wait_(store_wait) {
    EXPECT_OK(MakeDirectories(folder_));
    Start();
  }
  ~Process() { Kill(); }

  void Start() {
    RemoveAll(Ready()).IgnoreError();
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::execl(LWQ_BIN_DIR "/lwq-server", "lwq-server", "--listen", address_.c_str(), "--data-dir",
            folder_.c_str(), "--store", store_.c_str(), "--blobs", (folder_ + "/../blobs").c_str(),
            "--ready-file", Ready().c_str(), "--log-level", "warn", "--drain-timeout", "3",
            "--store-wait", store_wait_.c_str(), nullptr);
    ::_exit(127);
  }
  void Kill() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  // Its exit code after SIGTERM.
  int Stop() {
    ::kill(pid_, SIGTERM);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = 0;
    return WEXITSTATUS(status);
  }
  // By itself.
  bool HasEnded() {
    int status = 0;
    if (pid_ == 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return pid_ == 0;
    pid_ = 0;
    exit_code_ = WEXITSTATUS(status);
    return true;
  }
  int ExitCode() const { return exit_code_; }
  void Signal(int signal) { ::kill(pid_, signal); }
  bool HasLed() const { return FileExists(Ready()); }
  const std::string& address() const { return address_; }

 private:
  std::string Ready() const { return folder_ + "/ready"; }
  const std::string folder_, address_, store_, store_wait_;
  pid_t pid_ = 0;
  int exit_code_ = -1;
};

bool WaitFor(const std::function<bool()>& done, absl::Duration limit = absl::Minutes(1)) {
  const absl::Time end = absl::Now() + limit;
  while (!done() && absl::Now() < end) absl::SleepFor(absl::Milliseconds(50));
  return done();
}

bool Answers(const std::string& addresses) {
  auto stub = v1::AdminService::NewStub(MakeChannel(addresses));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
  v1::ServerInfo info;
  return stub->GetServerInfo(&context, {}, &info).ok();
}

TEST(ServerRunnerTest, AStandbyTakesOverFromALeaderThatDiesStopsOrHangs) {
  if (!FileExists(LWQ_BIN_DIR "/lwq-server")) GTEST_SKIP() << "lwq-server is not built";
  auto cluster = PostgresCluster::Start();
  if (cluster == nullptr) GTEST_SKIP() << "PostgreSQL's server is not installed here";
  LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
  const std::string url = cluster->UrlOf("postgres");
  const HeldPort port_of_a, port_of_b;
  Process a(directory.path() + "/a", url, port_of_a.port());
  ASSERT_TRUE(WaitFor([&] { return a.HasLed(); }));
  Process b(directory.path() + "/b", url, port_of_b.port());
  const std::string both = absl::StrCat(a.address(), ",", b.address());
  EXPECT_TRUE(WaitFor([&] { return Answers(both); }));
  EXPECT_FALSE(Answers(b.address()));

  a.Kill();
  EXPECT_TRUE(WaitFor([&] { return Answers(both); }));
  EXPECT_TRUE(WaitFor([&] { return Answers(b.address()); }));

  // It comes back, and stands by; the leader hangs, and finds itself replaced when it goes on.
  a.Start();
  EXPECT_FALSE(WaitFor([&] { return Answers(a.address()); }, absl::Seconds(5)));
  b.Signal(SIGSTOP);
  EXPECT_TRUE(WaitFor([&] { return Answers(a.address()); }));
  b.Signal(SIGCONT);
  EXPECT_TRUE(WaitFor([&] { return !Answers(b.address()); }));
  EXPECT_TRUE(WaitFor([&] { return Answers(both); }));

  // One that is stopped gives its lease back, and nobody waits for it to run out.
  LWQ_ASSERT_OK_AND_ASSIGN(auto records, PostgresStore::Open(url));
  const std::string holder = records->Get(Table::kLeader, "lease")->value;
  EXPECT_EQ(a.Stop(), 0);
  EXPECT_NE(records->Get(Table::kLeader, "lease")->value, holder);
  EXPECT_TRUE(WaitFor([&] { return Answers(both); }));
  EXPECT_EQ(b.Stop(), 0);
}

TEST(ServerRunnerTest, AStoreThatIsAwayAtTheStartIsWaitedFor) {
  if (!FileExists(LWQ_BIN_DIR "/lwq-server")) GTEST_SKIP() << "lwq-server is not built";
  auto cluster = PostgresCluster::Start();
  if (cluster == nullptr) GTEST_SKIP() << "PostgreSQL's server is not installed here";
  LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
  cluster->Kill();
  const HeldPort port;
  Process server(directory.path() + "/a", cluster->UrlOf("postgres"), port.port());
  EXPECT_FALSE(WaitFor([&] { return server.HasLed() || server.HasEnded(); }, absl::Seconds(3)));
  cluster->Run();
  EXPECT_TRUE(WaitFor([&] { return server.HasLed(); }));
  EXPECT_EQ(server.Stop(), 0);

  // Not for ever: who starts it again has to hear of it.
  cluster->Kill();
  Process hasty(directory.path() + "/b", cluster->UrlOf("postgres"), port.port(), "1");
  EXPECT_TRUE(WaitFor([&] { return hasty.HasEnded(); }));
  EXPECT_EQ(hasty.ExitCode(), 74);
}

}  // namespace
}  // namespace lwq
