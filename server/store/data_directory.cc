#include "server/store/data_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"

namespace lwq {

absl::StatusOr<std::unique_ptr<DirectoryLock>> DirectoryLock::Take(const std::string& directory) {
  const std::string path = JoinPath(directory, "lock");
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("opening ", path));
  auto lock = std::unique_ptr<DirectoryLock>(new DirectoryLock(fd));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return Failure(reasons::kStoreLocked,
                   absl::StrCat("another lwq-server holds ", path,
                                "; one server, or one restore, works in a data directory"));
  }
  return lock;
}

DirectoryLock::~DirectoryLock() { ::close(fd_); }

absl::Status CheckRestored(const std::string& directory) {
  const std::string folder = JoinPath(directory, kRestoringFolder);
  if (!FileExists(folder)) return absl::OkStatus();
  return Failure(reasons::kStoreCorrupt,
                 absl::StrCat("there is ", folder, ": the restore into ", directory,
                              " was not finished; remove the directory and restore again"));
}

}  // namespace lwq
