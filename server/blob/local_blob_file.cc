#include "server/blob/local_blob_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kCopyBytes = int64_t{1} << 20;

absl::Status BusyError(const std::string& path) {
  return Failure(reasons::kUploadBusy,
                 absl::StrCat("another call is uploading ", Basename(path), ": try again"));
}

}  // namespace

absl::Status BlobIoError(int error, absl::string_view doing, absl::string_view path) {
  if (error == ENOSPC || error == EDQUOT) {
    return Failure(reasons::kStorageFull, absl::StrCat(doing, " ", path, ": no space left"));
  }
  return Failure(reasons::kBlobIo,
                 absl::StrCat(doing, " ", path, ": ", absl::ErrnoToStatus(error, "").message()));
}

absl::StatusOr<int> OpenLockedFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return BlobIoError(errno, "opening", path);
  struct stat mine, there;
  // Between the two calls its last holder may have finished and moved it.
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0 || ::fstat(fd, &mine) != 0 ||
      ::stat(path.c_str(), &there) != 0 || mine.st_ino != there.st_ino) {
    ::close(fd);
    return BusyError(path);
  }
  return fd;
}

LocalBlobReader::~LocalBlobReader() { ::close(fd_); }

absl::StatusOr<std::string> LocalBlobReader::Read(int64_t offset, int64_t limit) {
  const int64_t wanted = std::min(limit, size_ - offset);
  if (wanted <= 0) return std::string();
  std::string bytes(static_cast<size_t>(wanted), '\0');
  int64_t done = 0;
  while (done < wanted) {
    const ssize_t n = ::pread(fd_, bytes.data() + done, wanted - done, offset + done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return BlobIoError(errno, "reading", "a blob");
    if (n == 0) return Failure(reasons::kBlobCorrupt, "a blob is shorter than it was");
    done += n;
  }
  return bytes;
}

LocalBlobWriter::~LocalBlobWriter() {
  ::close(fd_);
  store_->Release(reserved_bytes_);
}

absl::Status LocalBlobWriter::Resume() {
  std::vector<char> buffer(kCopyBytes);
  while (true) {
    const ssize_t n = ::pread(fd_, buffer.data(), buffer.size(), size_);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return BlobIoError(errno, "reading", path_);
    if (n == 0) break;
    hash_.Update(absl::string_view(buffer.data(), n));
    size_ += n;
  }
  if (size_ <= id_.size_bytes) return absl::OkStatus();
  return Drop(Failure(reasons::kSizeExceeded,
                      absl::StrCat("an earlier upload of ", id_.sha256, " has ", size_, " bytes, ",
                                   id_.size_bytes, " are declared; it is dropped, try again")));
}

absl::Status LocalBlobWriter::Reserve() {
  const int64_t bytes = id_.size_bytes - size_;
  LWQ_RETURN_IF_ERROR(store_->Reserve(bytes));
  reserved_bytes_ = bytes;
  return absl::OkStatus();
}

absl::Status LocalBlobWriter::Drop(absl::Status why) {
  ended_ = true;
  RemoveAll(path_).IgnoreError();
  return why;
}

absl::Status LocalBlobWriter::Append(absl::string_view bytes) {
  if (ended_) return Failure(reasons::kUploadEnded, "the upload has ended: start again");
  if (size_ + static_cast<int64_t>(bytes.size()) > id_.size_bytes) {
    return Drop(Failure(reasons::kSizeExceeded,
                        absl::StrCat("uploading ", id_.sha256, ": more than the declared ",
                                     id_.size_bytes, " bytes; the upload is dropped")));
  }
  size_t done = 0;
  Failpoint("blob.before_write");
  while (done < bytes.size()) {
    const ssize_t n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done, size_ + done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return BlobIoError(errno, "writing", path_);
    done += n;
  }
  hash_.Update(bytes);
  size_ += static_cast<int64_t>(bytes.size());
  store_->Release(static_cast<int64_t>(bytes.size()));
  reserved_bytes_ -= static_cast<int64_t>(bytes.size());
  return absl::OkStatus();
}

absl::Status LocalBlobWriter::Finish() {
  if (ended_) return Failure(reasons::kUploadEnded, "the upload has ended: start again");
  const std::string digest = hash_.FinishHex();
  if (size_ != id_.size_bytes || digest != id_.sha256) {
    return Drop(InvalidFailure(
        reasons::kDigestMismatch.name,
        absl::StrCat("uploading ", id_.sha256, " of ", id_.size_bytes, " bytes: the content is ",
                     digest, " of ", size_, " bytes; the upload is dropped")));
  }
  Failpoint("blob.before_sync");
  // After a failed flush the kernel takes the lost pages for clean, and a second flush succeeds
  // over a hole: only writing all of it again is safe.
  if (store_->options_.sync(fd_) != 0) return Drop(BlobIoError(errno, "flushing", path_));
  ended_ = true;
  absl::Status installed = store_->Install(id_, path_);
  return installed.ok() ? installed : Drop(installed);
}

}  // namespace lwq
