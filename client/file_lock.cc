#include "client/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/reasons.h"

namespace lwq::client {

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Acquire(const std::string& path, Mode mode,
                                                            absl::Duration timeout) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("opening the lock file ", path));
  const int operation = (mode == Mode::kShared ? LOCK_SH : LOCK_EX) | LOCK_NB;
  const absl::Time deadline = absl::Now() + timeout;
  while (::flock(fd, operation) != 0) {
    const int error = errno;
    if (error != EWOULDBLOCK && error != EINTR) {
      ::close(fd);
      return absl::ErrnoToStatus(error, absl::StrCat("locking ", path));
    }
    if (absl::Now() >= deadline) {
      ::close(fd);
      return Failure(reasons::kLockHeld, absl::StrCat(path, " is held by another process"));
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  return std::unique_ptr<FileLock>(new FileLock(fd));
}

bool FileLock::IsHeld(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return false;
  const bool held = ::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(fd);
  return held;
}

bool FileLock::IsOf(const std::string& path) const {
  struct stat mine, there;
  return ::fstat(fd_, &mine) == 0 && ::stat(path.c_str(), &there) == 0 &&
         mine.st_dev == there.st_dev && mine.st_ino == there.st_ino;
}

FileLock::~FileLock() { ::close(fd_); }

}  // namespace lwq::client
