#include "server/blob/blob_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kMaxBlobBytes = int64_t{256} << 30;
constexpr int64_t kCopyBytes = int64_t{1} << 20;

absl::Status IoError(int error, absl::string_view doing, absl::string_view path) {
  if (error == ENOSPC || error == EDQUOT) {
    return Failure(absl::StatusCode::kResourceExhausted, "STORAGE_FULL",
                   absl::StrCat(doing, " ", path, ": no space left"));
  }
  return Failure(absl::StatusCode::kUnavailable, "BLOB_IO",
                 absl::StrCat(doing, " ", path, ": ", absl::ErrnoToStatus(error, "").message()));
}

}  // namespace

absl::Status CheckBlobId(const BlobId& id) {
  if (!IsSha256Hex(id.sha256)) {
    return InvalidFailure("DIGEST_INVALID",
                          "a blob is named by 64 lower-case hexadecimal characters");
  }
  if (id.size_bytes < 0 || id.size_bytes > kMaxBlobBytes) {
    return InvalidFailure("DIGEST_INVALID", absl::StrCat("blob size ", id.size_bytes,
                                                         " is outside 0 to ", kMaxBlobBytes));
  }
  return absl::OkStatus();
}

BlobReader::~BlobReader() { ::close(fd_); }

absl::StatusOr<std::string> BlobReader::Read(int64_t offset, int64_t limit) {
  const int64_t wanted = std::min(limit, size_ - offset);
  if (wanted <= 0) return std::string();
  std::string bytes(static_cast<size_t>(wanted), '\0');
  int64_t done = 0;
  while (done < wanted) {
    const ssize_t n = ::pread(fd_, bytes.data() + done, wanted - done, offset + done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError(errno, "reading", "a blob");
    if (n == 0) return CorruptFailure("BLOB_CORRUPT", "a blob is shorter than it was");
    done += n;
  }
  return bytes;
}

BlobWriter::~BlobWriter() {
  if (fd_ >= 0) ::close(fd_);
  store_->CloseUpload(id_.sha256);
}

// Hashes what an earlier writer left.
absl::Status BlobWriter::Resume() {
  std::vector<char> buffer(kCopyBytes);
  while (true) {
    const ssize_t n = ::pread(fd_, buffer.data(), buffer.size(), size_);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError(errno, "reading", path_);
    if (n == 0) return absl::OkStatus();
    hash_.Update(absl::string_view(buffer.data(), n));
    size_ += n;
  }
}

absl::Status BlobWriter::Append(absl::string_view bytes) {
  if (size_ + static_cast<int64_t>(bytes.size()) > id_.size_bytes) {
    RemoveAll(path_).IgnoreError();
    return InvalidFailure("SIZE_EXCEEDED",
                          absl::StrCat("uploading ", id_.sha256, ": more than the declared ",
                                       id_.size_bytes, " bytes; the upload is dropped"));
  }
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done, size_ + done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError(errno, "writing", path_);
    done += n;
  }
  hash_.Update(bytes);
  size_ += static_cast<int64_t>(bytes.size());
  return absl::OkStatus();
}

absl::Status BlobWriter::Finish() {
  const std::string digest = hash_.FinishHex();
  if (size_ != id_.size_bytes || digest != id_.sha256) {
    RemoveAll(path_).IgnoreError();
    return InvalidFailure(
        "DIGEST_MISMATCH",
        absl::StrCat("uploading ", id_.sha256, " of ", id_.size_bytes, " bytes: the content is ",
                     digest, " of ", size_, " bytes; the upload is dropped"));
  }
  if (::fsync(fd_) != 0) return IoError(errno, "flushing", path_);
  ::close(fd_);
  fd_ = -1;
  const std::string target = store_->PathOf(id_);
  const bool is_new = !FileExists(target);
  const std::string folder = Dirname(target);
  LWQ_RETURN_IF_ERROR(MakeDirectories(folder));
  LWQ_RETURN_IF_ERROR(RenameFile(path_, target));
  LWQ_RETURN_IF_ERROR(SyncDirectory(folder));
  // The two folders above may be new as well.
  LWQ_RETURN_IF_ERROR(SyncDirectory(Dirname(folder)));
  LWQ_RETURN_IF_ERROR(SyncDirectory(Dirname(Dirname(folder))));
  if (is_new) store_->Count(id_.size_bytes);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<BlobStore>> BlobStore::Open(const std::string& directory,
                                                           const BlobStoreOptions& options) {
  auto store = std::unique_ptr<BlobStore>(new BlobStore(directory, options));
  const std::string root = JoinPath(directory, "sha256");
  LWQ_RETURN_IF_ERROR(MakeDirectories(root));
  LWQ_RETURN_IF_ERROR(MakeDirectories(JoinPath(directory, "uploads")));
  LWQ_ASSIGN_OR_RETURN(std::vector<std::string> first, ListDirectory(root));
  for (const std::string& a : first) {
    const std::string folder_a = JoinPath(root, a);
    LWQ_ASSIGN_OR_RETURN(std::vector<std::string> second, ListDirectory(folder_a));
    for (const std::string& b : second) {
      const std::string folder_b = JoinPath(folder_a, b);
      LWQ_ASSIGN_OR_RETURN(std::vector<std::string> files, ListDirectory(folder_b));
      for (const std::string& file : files) {
        LWQ_ASSIGN_OR_RETURN(int64_t size, FileSize(JoinPath(folder_b, file)));
        store->Count(size);
      }
    }
  }
  return store;
}

std::string BlobStore::PathOf(const BlobId& id) const {
  return absl::StrCat(directory_, "/sha256/", id.sha256.substr(0, 2), "/", id.sha256.substr(2, 2),
                      "/", id.sha256);
}

std::string BlobStore::UploadPathOf(const BlobId& id) const {
  return absl::StrCat(directory_, "/uploads/", id.sha256);
}

absl::StatusOr<bool> BlobStore::Has(const BlobId& id) const {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  struct stat info;
  if (::stat(PathOf(id).c_str(), &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return IoError(errno, "looking for", id.sha256);
  }
  return static_cast<int64_t>(info.st_size) == id.size_bytes;
}

absl::StatusOr<std::unique_ptr<BlobReader>> BlobStore::OpenRead(const BlobId& id) const {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  const std::string path = PathOf(id);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return Failure(absl::StatusCode::kNotFound, "BLOB_MISSING",
                     absl::StrCat("no blob ", id.sha256));
    }
    return IoError(errno, "opening", path);
  }
  struct stat info;
  ::fstat(fd, &info);
  auto reader = std::unique_ptr<BlobReader>(new BlobReader(fd, info.st_size));
  if (info.st_size != id.size_bytes) {
    return CorruptFailure("BLOB_CORRUPT", absl::StrCat("blob ", id.sha256, " has ", info.st_size,
                                                       " bytes, ", id.size_bytes, " expected"));
  }
  return reader;
}

absl::StatusOr<std::unique_ptr<BlobWriter>> BlobStore::OpenWrite(const BlobId& id) {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  LWQ_RETURN_IF_ERROR(CheckSpace(id.size_bytes));
  {
    MutexLock lock(&mu_);
    if (!open_uploads_.insert(id.sha256).second) {
      return Failure(absl::StatusCode::kUnavailable, "UPLOAD_BUSY",
                     absl::StrCat("another call is uploading ", id.sha256, ": try again"));
    }
  }
  const std::string path = UploadPathOf(id);
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  const int error = errno;
  auto writer = std::unique_ptr<BlobWriter>(new BlobWriter(this, id, path, fd));
  if (fd < 0) return IoError(error, "opening", path);
  LWQ_RETURN_IF_ERROR(writer->Resume());
  return writer;
}

absl::StatusOr<int64_t> BlobStore::UploadedBytes(const BlobId& id) const {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  const std::string path = UploadPathOf(id);
  if (!FileExists(path)) return int64_t{0};
  return FileSize(path);
}

absl::StatusOr<BlobId> BlobStore::Put(absl::string_view content) {
  BlobId id{Sha256Hex(content), static_cast<int64_t>(content.size())};
  LWQ_ASSIGN_OR_RETURN(const bool there, Has(id));
  if (there) return id;
  RemoveAll(UploadPathOf(id)).IgnoreError();
  LWQ_ASSIGN_OR_RETURN(auto writer, OpenWrite(id));
  LWQ_RETURN_IF_ERROR(writer->Append(content));
  LWQ_RETURN_IF_ERROR(writer->Finish());
  return id;
}

absl::Status BlobStore::CheckSpace(int64_t wanted) const {
  struct statvfs info;
  if (::statvfs(directory_.c_str(), &info) != 0) {
    return IoError(errno, "measuring the free space of", directory_);
  }
  const double block = static_cast<double>(info.f_frsize);
  const double free = block * static_cast<double>(info.f_bavail);
  const double floor =
      std::min(options_.min_free_share * block * static_cast<double>(info.f_blocks),
               static_cast<double>(options_.min_free_bytes));
  if (free - static_cast<double>(wanted) < floor) {
    return Failure(
        absl::StatusCode::kResourceExhausted, "STORAGE_FULL",
        absl::StrCat(directory_, " has ", static_cast<int64_t>(free), " bytes free; a blob of ",
                     wanted, " bytes would leave fewer than ", static_cast<int64_t>(floor)));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> BlobStore::FreeBytes() const {
  struct statvfs info;
  if (::statvfs(directory_.c_str(), &info) != 0) {
    return IoError(errno, "measuring the free space of", directory_);
  }
  return static_cast<int64_t>(info.f_frsize) * static_cast<int64_t>(info.f_bavail);
}

void BlobStore::Count(int64_t bytes) {
  MutexLock lock(&mu_);
  bytes_ += bytes;
  ++count_;
}

void BlobStore::CloseUpload(const std::string& sha256) {
  MutexLock lock(&mu_);
  open_uploads_.erase(sha256);
}

int64_t BlobStore::total_bytes() const {
  MutexLock lock(&mu_);
  return bytes_;
}

int64_t BlobStore::total_count() const {
  MutexLock lock(&mu_);
  return count_;
}

}  // namespace lwq
