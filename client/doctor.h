// What is wrong with this machine, the server or a model: facts are read apart from what is made of
// them, so that the latter is pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/client.h"

namespace lwq::client {

struct Finding {
  enum class State { kOk, kWarn, kFail };
  std::string area;  // "machine", "server", "model"
  std::string name;  // "memory"
  State state = State::kOk;
  std::string detail;
  std::string advice;  // the next command, or what to change; empty when ok
};

struct MachineFacts {
  int processors = 0;           // that this process may use
  int64_t memory_bytes = 0;     // of the machine, or of the control group when that is less
  int64_t available_bytes = 0;  // that could be had now; below 0: not known
  std::string disk_directory;   // the nearest that exists of the data directory
  bool disk_writable = false;
  int64_t disk_free_bytes = 0;
  std::string cpu_flags;   // as /proc/cpuinfo has them, with spaces around each
  int64_t open_files = 0;  // the soft limit
};

MachineFacts ReadMachineFacts(const std::string& data_directory);
std::vector<Finding> FindingsOfMachine(const MachineFacts& facts);

// The server's own checks, and whether it is of this program's version.
std::vector<Finding> FindingsOfServer(const v1::ServerInfo& info, absl::string_view version);
Finding UnreachableServer(absl::string_view address, const absl::Status& status);

// The lines that `lwq-worker --check-model` prints. INTERNAL when they are none.
absl::StatusOr<std::vector<Finding>> FindingsOfModel(absl::string_view json_lines);
// Runs that program. NOT_FOUND PROGRAM_NOT_FOUND without one beside this.
absl::StatusOr<std::vector<Finding>> CheckModelDirectory(const std::string& directory);

// "ok    memory    ..." by area, with what to do below what is not ok; and as JSON.
std::string FindingsText(const std::vector<Finding>& findings);
std::string FindingsJson(const std::vector<Finding>& findings);
bool AnyFailed(const std::vector<Finding>& findings);

}  // namespace lwq::client
