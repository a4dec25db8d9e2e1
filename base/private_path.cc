#include "base/private_path.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace lwq {

absl::Status MakePrivateDirectory(const std::string& path) {
  if (FileExists(path)) return MakeDirectories(path);  // which says what else is there
  LWQ_RETURN_IF_ERROR(MakeDirectories(Dirname(path)));
  if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("making the directory ", path));
}

absl::Status MakePrivateFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("opening ", path));
  struct stat info;
  const bool is_open = ::fstat(fd, &info) == 0 && (info.st_mode & 077) != 0;
  if (is_open && info.st_uid == ::geteuid()) ::fchmod(fd, 0600);
  ::close(fd);
  return absl::OkStatus();
}

}  // namespace lwq
