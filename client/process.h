// Starting programs.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace lwq::client {

struct ProcessOptions {
  std::vector<std::string> argv;  // argv[0] is the program's path
  std::string log_path;           // stdout and stderr are appended here
  bool new_session = false;       // out of reach of the terminal's Ctrl-C
  bool die_with_parent = false;   // SIGKILL when the starting thread's process dies
};

// Starts the program; it inherits no descriptors but the log. NOT_FOUND PROGRAM_NOT_FOUND when it
// cannot be executed.
absl::StatusOr<pid_t> StartProcess(const ProcessOptions& options);

// The folder of the running program, where its sister programs lie.
absl::StatusOr<std::string> OwnDirectory();

// The last lines of a log, at most `max_bytes`; empty when there is none.
std::string LogTail(const std::string& path, int64_t max_bytes);

}  // namespace lwq::client
