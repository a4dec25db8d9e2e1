// Advisory locks between processes. The kernel drops them with the process, so a crash leaves none.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace lwq::client {

// Holds flock(2) on a file from Acquire to destruction. Not inherited by programs that are started.
class FileLock {
 public:
  enum class Mode { kShared, kExclusive };

  // Makes the file when missing and waits at most `timeout`. UNAVAILABLE LOCK_HELD when another
  // process keeps it.
  static absl::StatusOr<std::unique_ptr<FileLock>> Acquire(const std::string& path, Mode mode,
                                                           absl::Duration timeout);
  // Whether some process holds the file's lock exclusively now.
  static bool IsHeld(const std::string& path);

  // Whether the locked file is the one at `path` now: who held it before may have removed it.
  bool IsOf(const std::string& path) const;

  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace lwq::client
