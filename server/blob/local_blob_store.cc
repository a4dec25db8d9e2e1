#include "server/blob/local_blob_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/blob/local_blob_file.h"
#include "server/blob/verifying_reader.h"

namespace lwq {
namespace {

bool IsAbsent(int error) { return error == ENOENT || error == ENOTDIR; }

absl::StatusOr<DiskSpace> SpaceOf(const std::string& directory) {
  struct statvfs info;
  if (::statvfs(directory.c_str(), &info) != 0) {
    return BlobIoError(errno, "measuring the free space of", directory);
  }
  const int64_t block = static_cast<int64_t>(info.f_frsize);
  return DiskSpace{block * static_cast<int64_t>(info.f_blocks),
                   block * static_cast<int64_t>(info.f_bavail)};
}

}  // namespace

LocalBlobStore::LocalBlobStore(std::string directory, LocalBlobOptions options)
    : directory_(std::move(directory)), options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<LocalBlobStore>> LocalBlobStore::Open(
    const std::string& directory, const LocalBlobOptions& options) {
  LocalBlobOptions used = options;
  if (!used.sync) used.sync = ::fsync;
  if (!used.space) used.space = [directory] { return SpaceOf(directory); };
  auto store = std::unique_ptr<LocalBlobStore>(new LocalBlobStore(directory, std::move(used)));
  for (const char* folder : {"sha256", "uploads", "quarantine"}) {
    if (options.read_only) break;
    LWQ_RETURN_IF_ERROR(MakeDirectories(JoinPath(directory, folder)));
  }
  constexpr int kPage = 10'000;
  std::string after;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const std::vector<BlobStat> blobs, store->List(after, kPage));
    for (const BlobStat& blob : blobs) store->bytes_ += blob.id.size_bytes;
    store->count_ += static_cast<int64_t>(blobs.size());
    if (blobs.size() < kPage) return store;
    after = blobs.back().id.sha256;
  }
}

std::string LocalBlobStore::PathOf(const BlobId& id) const {
  return absl::StrCat(directory_, "/sha256/", id.sha256.substr(0, 2), "/", id.sha256.substr(2, 2),
                      "/", id.sha256);
}

std::string LocalBlobStore::UploadPathOf(const BlobId& id, const std::string& owner) const {
  return absl::StrCat(directory_, "/uploads/", id.sha256, owner.empty() ? "" : ".", owner);
}

absl::StatusOr<bool> LocalBlobStore::Has(const BlobId& id) const {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  struct stat info;
  if (::stat(PathOf(id).c_str(), &info) != 0) {
    if (IsAbsent(errno)) return false;
    return BlobIoError(errno, "looking for", id.sha256);
  }
  return static_cast<int64_t>(info.st_size) == id.size_bytes;
}

absl::StatusOr<std::unique_ptr<BlobReader>> LocalBlobStore::OpenRead(const BlobId& id) {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  const std::string path = PathOf(id);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    if (!IsAbsent(errno)) return BlobIoError(errno, "opening", path);
    return Failure(reasons::kBlobMissing, absl::StrCat("no blob ", id.sha256));
  }
  struct stat info;
  ::fstat(fd, &info);
  auto file = std::make_unique<LocalBlobReader>(fd, info.st_size);
  if (info.st_size != id.size_bytes) {
    QuarantineIfWrong(id);
    return Failure(reasons::kBlobCorrupt, absl::StrCat("blob ", id.sha256, " has ", info.st_size,
                                                       " bytes, ", id.size_bytes, " expected"));
  }
  return MakeVerifyingReader(id, std::move(file), [this, id] { QuarantineIfWrong(id); });
}

absl::StatusOr<std::unique_ptr<BlobWriter>> LocalBlobStore::OpenUpload(const BlobId& id,
                                                                       const std::string& owner) {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  const std::string path = UploadPathOf(id, owner);
  LWQ_ASSIGN_OR_RETURN(const int fd, OpenLockedFile(path));
  auto writer = std::make_unique<LocalBlobWriter>(this, id, path, fd);
  LWQ_RETURN_IF_ERROR(writer->Resume());
  LWQ_RETURN_IF_ERROR(writer->Reserve());
  return writer;
}

absl::StatusOr<int64_t> LocalBlobStore::UploadedBytesOf(const BlobId& id,
                                                        const std::string& owner) const {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  const std::string path = UploadPathOf(id, owner);
  if (!FileExists(path)) return int64_t{0};
  return FileSize(path);
}

absl::StatusOr<std::vector<UploadStat>> LocalBlobStore::ListUploads() const {
  const std::string folder = JoinPath(directory_, "uploads");
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(folder));
  std::vector<UploadStat> uploads;
  for (const std::string& name : names) {
    struct stat info;
    if (::stat(JoinPath(folder, name).c_str(), &info) != 0) continue;  // finished meanwhile
    const std::vector<std::string> parts = absl::StrSplit(name, absl::MaxSplits('.', 1));
    uploads.push_back({parts[0], parts.size() > 1 ? parts[1] : "", info.st_size});
  }
  return uploads;
}

absl::StatusOr<int> LocalBlobStore::ExpireUploads(absl::Time before) {
  const std::string folder = JoinPath(directory_, "uploads");
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(folder));
  int dropped = 0;
  for (const std::string& name : names) {
    const std::string path = JoinPath(folder, name);
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) continue;
    if (absl::TimeFromTimespec(info.st_mtim) >= before) continue;
    absl::StatusOr<int> fd = OpenLockedFile(path);
    if (!fd.ok()) continue;  // it has a writer
    LWQ_RETURN_IF_ERROR(RemoveAll(path));
    ::close(*fd);
    ++dropped;
  }
  return dropped;
}

absl::Status LocalBlobStore::Delete(const BlobId& id) {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  const std::string path = PathOf(id);
  if (::unlink(path.c_str()) != 0) {
    return IsAbsent(errno) ? absl::OkStatus() : BlobIoError(errno, "deleting", path);
  }
  bytes_ -= id.size_bytes;
  --count_;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BlobStat>> LocalBlobStore::List(const std::string& after,
                                                           int limit) const {
  std::vector<BlobStat> found;
  const std::string root = JoinPath(directory_, "sha256");
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> first, ListDirectory(root));
  for (const std::string& a : first) {
    if (a < after.substr(0, 2)) continue;
    LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> second, ListDirectory(JoinPath(root, a)));
    for (const std::string& b : second) {
      if (a + b < after.substr(0, 4)) continue;
      const std::string folder = absl::StrCat(root, "/", a, "/", b);
      LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> files, ListDirectory(folder));
      for (const std::string& file : files) {
        if (file <= after || !IsSha256Hex(file)) continue;
        struct stat info;
        if (::stat(JoinPath(folder, file).c_str(), &info) != 0) continue;  // deleted meanwhile
        found.push_back(
            {{file, static_cast<int64_t>(info.st_size)}, absl::TimeFromTimespec(info.st_mtim)});
        if (static_cast<int>(found.size()) == limit) return found;
      }
    }
  }
  return found;
}

absl::Status LocalBlobStore::Install(const BlobId& id, const std::string& from) {
  const std::string target = PathOf(id);
  struct stat old;
  const bool replaces = ::stat(target.c_str(), &old) == 0;
  const std::string folder = Dirname(target);
  LWQ_RETURN_IF_ERROR(MakeDirectories(folder));
  Failpoint("blob.before_rename");
  LWQ_RETURN_IF_ERROR(RenameFile(from, target));
  Failpoint("blob.after_rename");
  if (replaces) {
    bytes_ -= static_cast<int64_t>(old.st_size);
    --count_;
  }
  // The two folders above may be new as well.
  for (const std::string& path : {folder, Dirname(folder), Dirname(Dirname(folder))}) {
    absl::Status synced = SyncDirectory(path);
    if (synced.ok()) continue;
    // It may be gone after a power cut, so nobody may take it for stored.
    RemoveAll(target).IgnoreError();
    return synced;
  }
  bytes_ += id.size_bytes;
  ++count_;
  return absl::OkStatus();
}

absl::Status LocalBlobStore::SyncDirectory(const std::string& path) const {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return BlobIoError(errno, "opening", path);
  const bool failed = options_.sync(fd) != 0;
  const int error = errno;
  ::close(fd);
  return failed ? BlobIoError(error, "flushing", path) : absl::OkStatus();
}

// Read once more, because the caller may be wrong about the size, or have an old file open whose
// successor is right.
void LocalBlobStore::QuarantineIfWrong(const BlobId& id) {
  if (options_.read_only) return;
  const std::string path = PathOf(id);
  const std::string place = absl::StrCat(directory_, "/quarantine/", id.sha256);
  absl::StatusOr<std::string> digest = Sha256HexOfFile(path);
  if (!digest.ok() || *digest == id.sha256) return;
  absl::StatusOr<int64_t> size = FileSize(path);
  absl::Status moved = size.ok() ? RenameFile(path, place) : size.status();
  if (!moved.ok()) {
    spdlog::warn("blob {} is corrupt and stays: {}", id.sha256, LogSafe(moved.ToString()));
    return;
  }
  spdlog::warn("blob {} is corrupt: moved to {}", id.sha256, place);
  ++num_corrupt_;
  bytes_ -= *size;
  --count_;
}

absl::Status LocalBlobStore::Reserve(int64_t bytes) {
  LWQ_ASSIGN_OR_RETURN(const DiskSpace space, options_.space());
  const int64_t floor = std::min(static_cast<int64_t>(options_.min_free_share * space.total_bytes),
                                 options_.min_free_bytes);
  MutexLock lock(&mu_);
  const int64_t free = space.free_bytes - reserved_bytes_;
  if (free - bytes < floor) {
    return Failure(reasons::kStorageFull,
                   absl::StrCat(directory_, " has ", free, " bytes free; ", bytes,
                                " more would leave fewer than ", floor,
                                ": make room, and the upload goes on"));
  }
  reserved_bytes_ += bytes;
  return absl::OkStatus();
}

void LocalBlobStore::Release(int64_t bytes) {
  MutexLock lock(&mu_);
  reserved_bytes_ -= bytes;
}

absl::StatusOr<int64_t> LocalBlobStore::FreeBytes() const {
  LWQ_ASSIGN_OR_RETURN(const DiskSpace space, options_.space());
  return space.free_bytes;
}

}  // namespace lwq
