#include "tests/testing/postgres_cluster.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace lwq::testing {
namespace {

constexpr uid_t kNobody = 65534;

// The newest server that Debian's packages put there, or "".
std::string BinDirectory() {
  const std::string root = "/usr/lib/postgresql";
  auto versions = ListDirectory(root);
  if (!versions.ok()) return "";
  std::string best;
  for (const std::string& version : *versions) {
    const std::string bin = absl::StrCat(root, "/", version, "/bin");
    if (FileExists(bin + "/initdb") && FileExists(bin + "/postgres")) best = bin;
  }
  return best;
}

// The child ends with this process. Its output goes to `log`.
pid_t Spawn(const std::vector<std::string>& arguments, const std::string& log) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  ::dup2(out, 1);
  ::dup2(out, 2);
  if (::geteuid() == 0 &&
      (::setgroups(0, nullptr) != 0 || ::setgid(kNobody) != 0 || ::setuid(kNobody) != 0)) {
    ::_exit(126);
  }
  ::prctl(PR_SET_PDEATHSIG, SIGQUIT);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

std::string LogOf(const std::string& directory) {
  return ReadFile(directory + "/log", 1 << 20).value_or("(no log)");
}

}  // namespace

std::unique_ptr<PostgresCluster> PostgresCluster::Start() {
  const std::string bin = BinDirectory();
  if (bin.empty()) return nullptr;
  auto directory = TempDirectory::Create();
  if (!directory.ok()) return nullptr;
  if (::geteuid() == 0 && ::chown(directory->path().c_str(), kNobody, kNobody) != 0) return nullptr;
  auto cluster = std::unique_ptr<PostgresCluster>(new PostgresCluster(*std::move(directory)));
  cluster->bin_directory_ = bin;
  const std::string path = cluster->directory_.path();
  const pid_t initdb = Spawn({bin + "/initdb", "-D", cluster->DataDirectory(), "-U", "lwq",
                              "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"},
                             path + "/log");
  int status = 0;
  ::waitpid(initdb, &status, 0);
  EXPECT_EQ(status, 0) << LogOf(path);
  if (status != 0) return nullptr;
  cluster->Run();
  return cluster;
}

PostgresCluster::~PostgresCluster() { Kill(); }

std::string PostgresCluster::UrlOf(const std::string& database) const {
  return absl::StrCat("postgresql://lwq@/", database, "?host=", directory_.path());
}

void PostgresCluster::Run() {
  server_ = Spawn({bin_directory_ + "/postgres", "-D", DataDirectory(), "-k", directory_.path(),
                   "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c",
                   "max_connections=60"},
                  directory_.path() + "/log");
  // The last line of its pid file says how far it is.
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  while (absl::Now() < deadline) {
    auto pid_file = ReadFile(DataDirectory() + "/postmaster.pid", 1 << 12);
    if (pid_file.ok() && absl::StartsWith(*pid_file, absl::StrCat(server_, "\n")) &&
        absl::StrContains(*pid_file, "ready")) {
      return;
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  ADD_FAILURE() << "PostgreSQL is not ready after a minute: " << LogOf(directory_.path());
}

void PostgresCluster::Kill() {
  if (server_ == 0) return;
  ::kill(server_, SIGQUIT);
  ::waitpid(server_, nullptr, 0);
  server_ = 0;
}

void PostgresCluster::Pause() { ::kill(server_, SIGSTOP); }
void PostgresCluster::Resume() { ::kill(server_, SIGCONT); }

}  // namespace lwq::testing
