#include "client/server_program.h"

#include <signal.h>
#include <sys/wait.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/process.h"
#include "client/supervisor.h"

namespace lwq::client {
namespace {

constexpr int64_t kMostOutputBytes = 64 << 20;
constexpr absl::Duration kPoll = absl::Milliseconds(20);

absl::StatusOr<int> WaitFor(pid_t pid, const std::function<absl::Status()>& may_go_on) {
  int wait_status = 0;
  absl::Status stopped;
  while (true) {
    const pid_t done = ::waitpid(pid, &wait_status, WNOHANG);
    if (done < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "waiting for lwq-server");
    if (done == pid) break;
    if (stopped.ok() && may_go_on) {
      stopped = may_go_on();
      if (!stopped.ok()) ::kill(pid, SIGTERM);
    }
    absl::SleepFor(kPoll);
  }
  LWQ_RETURN_IF_ERROR(stopped);
  return wait_status;
}

// What the program printed as its error; Internal for what is none.
absl::Status ErrorOf(const nlohmann::json& output, int wait_status, const std::string& text) {
  const auto error = output.is_object() ? output.find("error") : output.end();
  if (!output.is_object() || error == output.end()) {
    return absl::InternalError(
        absl::StrCat("lwq-server ", DescribeExit(wait_status), ": ", text.substr(0, 2000)));
  }
  const int code = error->value("code", static_cast<int>(absl::StatusCode::kInternal));
  return Failure(static_cast<absl::StatusCode>(code), error->value("reason", "INTERNAL"),
                 error->value("message", ""));
}

}  // namespace

absl::StatusOr<std::string> RunServerProgram(std::vector<std::string> arguments,
                                             const std::function<absl::Status()>& may_go_on) {
  LWQ_ASSIGN_OR_RETURN(const std::string binaries, OwnDirectory());
  LWQ_ASSIGN_OR_RETURN(const TempDirectory folder, TempDirectory::Create());
  ProcessOptions process;
  process.argv = {JoinPath(binaries, "lwq-server")};
  process.argv.insert(process.argv.end(), arguments.begin(), arguments.end());
  process.argv.push_back("--json");
  process.log_path = JoinPath(folder.path(), "output");
  process.die_with_parent = true;
  LWQ_ASSIGN_OR_RETURN(const pid_t pid, StartProcess(process));
  LWQ_ASSIGN_OR_RETURN(const int wait_status, WaitFor(pid, may_go_on));
  LWQ_ASSIGN_OR_RETURN(std::string text, ReadFile(process.log_path, kMostOutputBytes));
  absl::StripAsciiWhitespace(&text);
  // The last line: warnings may stand before it.
  const std::string line = text.substr(text.rfind('\n') + 1);
  const nlohmann::json output = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  const bool ended_well = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
  if (!ended_well || !output.is_object()) return ErrorOf(output, wait_status, text);
  return line;
}

}  // namespace lwq::client
