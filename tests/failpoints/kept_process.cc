#include "tests/failpoints/kept_process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"

namespace lwq::testing {
namespace {

// It ends with the thread that starts it.
pid_t Start(const std::vector<std::string>& command, const std::string& log,
            const std::string& failpoints) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  std::string variable = absl::StrCat("LWQ_FAILPOINTS=", failpoints);
  std::vector<char*> environment = {variable.data()};
  for (char** one = environ; *one != nullptr; ++one) environment.push_back(*one);
  environment.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(out, STDERR_FILENO);
  constexpr int kHighestClosed = 1024;
  for (int fd = 3; fd < kHighestClosed; ++fd) ::close(fd);
  ::execve(argv[0], argv.data(), environment.data());
  ::_exit(127);
}

}  // namespace

KeptProcess::KeptProcess(std::vector<std::string> command, std::string log,
                         const std::string& failpoints)
    : command_(std::move(command)), log_(std::move(log)), failpoints_(failpoints) {
  keeper_ = std::thread([this] { Keep(); });
}

KeptProcess::~KeptProcess() {
  {
    MutexLock lock(&mu_);
    ending_ = true;
    if (pid_ > 0) ::kill(pid_, SIGKILL);
  }
  keeper_.join();
}

void KeptProcess::Keep() {
  while (true) {
    pid_t pid = 0;
    {
      MutexLock lock(&mu_);
      if (ending_) return;
      pid = pid_ = Start(command_, log_, failpoints_);
      asked_ = false;
      changed_.SignalAll();
    }
    // Left to be reaped under the lock, so that nobody signals another process of this number.
    siginfo_t end = {};
    while (::waitid(P_PID, pid, &end, WEXITED | WNOWAIT) != 0) continue;
    MutexLock lock(&mu_);
    ::waitpid(pid, nullptr, 0);
    pid_ = 0;
    if (asked_ || ending_) continue;
    if (end.si_code == CLD_EXITED && end.si_status == kFailpointExit) {
      ++fired_;
      failpoints_.clear();
    } else {
      ++crashes_;
    }
  }
}

void KeptProcess::Signal(int signal, const std::string& failpoints) {
  MutexLock lock(&mu_);
  failpoints_ = failpoints;
  fired_ = 0;
  asked_ = true;
  if (pid_ > 0) ::kill(pid_, signal);
  while (asked_) changed_.Wait(&mu_);
}

void KeptProcess::Restart(const std::string& failpoints) { Signal(SIGKILL, failpoints); }
void KeptProcess::Terminate(const std::string& failpoints) { Signal(SIGTERM, failpoints); }

int KeptProcess::fired() const {
  MutexLock lock(&mu_);
  return fired_;
}

int KeptProcess::num_crashes() const {
  MutexLock lock(&mu_);
  return crashes_;
}

}  // namespace lwq::testing
