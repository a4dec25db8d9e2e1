// Who works in a data directory: one server, or one restore.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lwq {

// In a data directory into which a backup is being restored, or was until the restore was stopped.
inline constexpr char kRestoringFolder[] = "restoring";

// DIRECTORY/lock, held for the life of this; the kernel lets go of it when the process dies.
class DirectoryLock {
 public:
  // FAILED_PRECONDITION "STORE_LOCKED" when it is held.
  static absl::StatusOr<std::unique_ptr<DirectoryLock>> Take(const std::string& directory);
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  const int fd_;
};

// DATA_LOSS "STORE_CORRUPT" for a directory whose restore was not finished: without its records it
// would pass for a new one.
absl::Status CheckRestored(const std::string& directory);

}  // namespace lwq
