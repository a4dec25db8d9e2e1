#include "client/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq::client {
namespace {

// Between fork and exec: async-signal-safe calls only, the parent may have threads.
[[noreturn]] void BecomeProgram(const ProcessOptions& options, char* const* argv, int log,
                                pid_t parent) {
  constexpr int kCannotExecute = 127;
  if (options.new_session) ::setsid();
  if (options.die_with_parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(kCannotExecute);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int signal : {SIGINT, SIGTERM, SIGPIPE, SIGHUP}) ::signal(signal, SIG_DFL);
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  // Descriptors that were opened without O_CLOEXEC by libraries.
  constexpr int kHighestClosed = 1024;
  for (int fd = 3; fd < kHighestClosed; ++fd) ::close(fd);
  ::execv(argv[0], argv);
  ::_exit(kCannotExecute);
}

}  // namespace

absl::StatusOr<pid_t> StartProcess(const ProcessOptions& options) {
  const std::string& program = options.argv.front();
  if (::access(program.c_str(), X_OK) != 0) {
    return Failure(reasons::kProgramNotFound,
                   absl::StrCat(program, " is not there or cannot be executed"));
  }
  const int log = ::open(options.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) return absl::ErrnoToStatus(errno, absl::StrCat("opening ", options.log_path));
  std::vector<std::string> arguments = options.argv;
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) BecomeProgram(options, argv.data(), log, parent);
  const int error = errno;
  ::close(log);
  if (pid < 0) return absl::ErrnoToStatus(error, absl::StrCat("starting ", program));
  return pid;
}

absl::StatusOr<std::string> OwnDirectory() {
  std::array<char, 4096> path;
  const ssize_t size = ::readlink("/proc/self/exe", path.data(), path.size());
  if (size < 0 || static_cast<size_t>(size) >= path.size()) {
    return absl::ErrnoToStatus(errno, "reading /proc/self/exe");
  }
  return Dirname(absl::string_view(path.data(), static_cast<size_t>(size)));
}

std::string LogTail(const std::string& path, int64_t max_bytes) {
  const absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return "";
  const auto bytes = (*file)->bytes();
  const size_t size = std::min(bytes.size(), static_cast<size_t>(max_bytes));
  std::string tail(reinterpret_cast<const char*>(bytes.data()) + (bytes.size() - size), size);
  while (!tail.empty() && tail.back() == '\n') tail.pop_back();
  const size_t line = size < bytes.size() ? tail.find('\n') : std::string::npos;
  return line == std::string::npos ? tail : tail.substr(line + 1);
}

}  // namespace lwq::client
