#include "client/download.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq::client {
namespace {

constexpr absl::Duration kIdleLimit = absl::Seconds(60);
constexpr char kPartial[] = ".partial";
constexpr char kGgufSuffix[] = ".gguf";

// What is there of the file is kept: the next attempt goes on from it.
absl::Status WriteError(int error, const std::string& path) {
  if (error == ENOSPC || error == EDQUOT) {
    return Failure(reasons::kStorageFull,
                   absl::StrCat("the disk of ", LogSafe(path), " is full; what was fetched stays "
                                "there, and the same command goes on from it"));
  }
  return absl::ErrnoToStatus(error, absl::StrCat("writing ", path));
}

// A file that is appended to and can be cut back.
class PartialFile {
 public:
  static absl::StatusOr<std::unique_ptr<PartialFile>> Open(const std::string& path) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("opening ", path));
    return std::unique_ptr<PartialFile>(new PartialFile(path, fd));
  }
  ~PartialFile() { ::close(fd_); }

  absl::Status Append(absl::string_view data) {
    while (!data.empty()) {
      const ssize_t n = ::write(fd_, data.data(), data.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return WriteError(errno, path_);
      data.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }
  absl::Status Sync() {
    return ::fsync(fd_) == 0 ? absl::OkStatus() : WriteError(errno, path_);
  }

 private:
  PartialFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  const std::string path_;
  const int fd_;
};

// One file of one artifact.
class FileDownload {
 public:
  FileDownload(Client* client, const std::string& artifact, const v1::NamedBlob& file,
               const std::string& staging)
      : client_(client),
        artifact_(artifact),
        file_(file),
        path_(JoinPath(staging, file.name())),
        partial_(absl::StrCat(path_, kPartial)) {}

  absl::Status Run(const std::function<void(int64_t)>& progress) {
    if (FileExists(path_)) {
      const absl::StatusOr<std::string> sha256 = Sha256HexOfFile(path_);
      if (sha256.ok() && *sha256 == file_.blob().sha256()) return absl::OkStatus();
      LWQ_RETURN_IF_ERROR(RemoveAll(path_));
    }
    // Twice: a partial file of an earlier attempt may be damaged, a fresh one may not.
    for (bool fresh : {false, true}) {
      if (fresh) LWQ_RETURN_IF_ERROR(RemoveAll(partial_));
      LWQ_RETURN_IF_ERROR(Fetch(progress));
      LWQ_ASSIGN_OR_RETURN(const std::string sha256, Sha256HexOfFile(partial_));
      if (sha256 == file_.blob().sha256()) return RenameFile(partial_, path_);
    }
    LWQ_RETURN_IF_ERROR(RemoveAll(partial_));
    return Failure(
        reasons::kDigestMismatch,
        absl::StrCat("the server's bytes of ", LogSafe(file_.name()), " do not have the digest ",
                     file_.blob().sha256(), " that the artifact names"));
  }

 private:
  // Fills the partial file to its full size.
  absl::Status Fetch(const std::function<void(int64_t)>& progress) {
    LWQ_ASSIGN_OR_RETURN(const std::unique_ptr<PartialFile> out, PartialFile::Open(partial_));
    LWQ_ASSIGN_OR_RETURN(int64_t offset, FileSize(partial_));
    if (offset > file_.blob().size_bytes()) {
      if (::truncate(partial_.c_str(), 0) != 0) {
        return absl::ErrnoToStatus(errno, absl::StrCat("cutting ", partial_));
      }
      offset = 0;
    }
    RetryLoop retry(client_->options());
    while (offset < file_.blob().size_bytes()) {
      v1::ReadArtifactRequest request;
      request.set_name(artifact_);
      request.set_file(file_.name());
      request.set_read_offset(offset);
      request.set_if_sha256(file_.blob().sha256());
      const auto take = [&](const v1::ReadArtifactResponse& part) {
        return Take(part, out.get(), &offset, &retry, progress);
      };
      absl::Status ended = client_->StreamArtifact(request, kIdleLimit, take);
      if (ended.ok() && offset < file_.blob().size_bytes()) {
        ended = absl::UnavailableError("the stream ended before the file did");
      }
      if (ended.ok()) break;
      LWQ_RETURN_IF_ERROR(Annotate(retry.BeforeRetry(ended), "downloading ", LogSafe(file_.name()),
                                   " of ", artifact_));
    }
    return out->Sync();
  }

  absl::Status Take(const v1::ReadArtifactResponse& part, PartialFile* out, int64_t* offset,
                    RetryLoop* retry, const std::function<void(int64_t)>& progress) {
    const int64_t size = static_cast<int64_t>(part.data().size());
    if (part.offset() != *offset || size > file_.blob().size_bytes() - *offset) {
      return CorruptFailure(reasons::kOffsetMismatch.name,
                            absl::StrCat("the server sent ", size, " bytes at ", part.offset(),
                                         " of ", LogSafe(file_.name()), "; expected offset ",
                                         *offset, " of ", file_.blob().size_bytes()));
    }
    LWQ_RETURN_IF_ERROR(out->Append(part.data()));
    *offset += size;
    if (size > 0) retry->Reset();
    progress(*offset);
    return absl::OkStatus();
  }

  Client* const client_;
  const std::string artifact_;
  const v1::NamedBlob& file_;
  const std::string path_;
  const std::string partial_;
};

absl::Status CheckNames(const v1::Artifact& artifact) {
  std::set<std::string> names;
  for (const v1::NamedBlob& file : artifact.files()) {
    if (!IsPlainFileName(file.name()) || absl::EndsWith(file.name(), kPartial) ||
        !IsSha256Hex(file.blob().sha256()) || file.blob().size_bytes() < 0) {
      return Failure(reasons::kArtifactFileName,
                     absl::StrCat(artifact.name(), " lists the file \"", LogSafe(file.name()),
                                  "\", which is no plain name with a digest"));
    }
    if (!names.insert(file.name()).second) {
      return Failure(reasons::kArtifactFileName,
                     absl::StrCat(artifact.name(), " lists ", file.name(), " twice"));
    }
  }
  return absl::OkStatus();
}

// Removes what is not the artifact's: leftovers of a damaged or another attempt.
absl::Status RemoveStrangers(const v1::Artifact& artifact, const std::string& staging) {
  std::set<std::string> names;
  for (const v1::NamedBlob& file : artifact.files()) names.insert(file.name());
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> present, ListDirectory(staging));
  for (const std::string& name : present) {
    if (names.count(name) == 0) LWQ_RETURN_IF_ERROR(RemoveAll(JoinPath(staging, name)));
  }
  return SyncDirectory(staging);
}

absl::Status CopyFile(const std::string& from, const std::string& to) {
  LWQ_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> source, MappedFile::Open(from));
  LWQ_ASSIGN_OR_RETURN(const std::unique_ptr<FileWriter> target, FileWriter::Create(to));
  LWQ_RETURN_IF_ERROR(target->Append(source->bytes()));
  return target->Finish();
}

absl::Status CopyDirectory(const std::string& from, const std::string& to) {
  LWQ_RETURN_IF_ERROR(RemoveAll(to));
  LWQ_RETURN_IF_ERROR(MakeDirectories(to));
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(from));
  for (const std::string& name : names) {
    LWQ_RETURN_IF_ERROR(CopyFile(JoinPath(from, name), JoinPath(to, name)));
  }
  return SyncDirectory(to);
}

// In one step, over file systems too.
absl::Status MoveFile(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  if (errno != EXDEV) {
    return absl::ErrnoToStatus(errno, absl::StrCat("renaming ", from, " to ", to));
  }
  const std::string partial = absl::StrCat(to, kPartial);
  const absl::Status copied = CopyFile(from, partial);
  if (copied.ok()) return RenameFile(partial, to);
  RemoveAll(partial).IgnoreError();
  return copied;
}

// The nearest folder above `path` that exists: where it would be made.
std::string ExistingParent(const std::string& path) {
  std::string parent = Dirname(path);
  while (parent.size() > 1 && !FileExists(parent)) parent = Dirname(parent);
  return parent;
}

}  // namespace

absl::Status DownloadArtifact(Client* client, const v1::Artifact& artifact,
                              const std::string& staging, const DownloadProgress& progress) {
  LWQ_RETURN_IF_ERROR(CheckNames(artifact));
  LWQ_RETURN_IF_ERROR(MakeDirectories(staging));
  int64_t total = 0;
  for (const v1::NamedBlob& file : artifact.files()) total += file.blob().size_bytes();
  int64_t before = 0;
  for (const v1::NamedBlob& file : artifact.files()) {
    FileDownload download(client, artifact.name(), file, staging);
    LWQ_RETURN_IF_ERROR(download.Run([&](int64_t done) {
      if (progress) progress(before + done, total);
    }));
    before += file.blob().size_bytes();
    if (progress) progress(before, total);
  }
  return RemoveStrangers(artifact, staging);
}

absl::Status CheckOutputFree(const std::string& directory) {
  if (!FileExists(directory)) return absl::OkStatus();
  if (IsDirectory(directory)) {
    LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory));
    if (names.empty()) return absl::OkStatus();
  }
  return Failure(reasons::kOutputExists,
                 absl::StrCat(directory, " exists and is not an empty directory"));
}

bool IsFileOutput(absl::string_view path) { return absl::EndsWith(path, kGgufSuffix); }

std::string ProofPath(absl::string_view out, absl::string_view name) {
  return IsFileOutput(out) ? absl::StrCat(out, ".", name) : JoinPath(out, name);
}

absl::Status CheckOutputPlace(const std::string& out) {
  LWQ_RETURN_IF_ERROR(CheckOutput(out));
  const std::string name = Basename(out);
  if (name.empty() || name == "." || name == "..") {
    return Failure(reasons::kUsage, absl::StrCat("--out ", LogSafe(out),
                                                 " is a folder in use; name one that is new"));
  }
  const std::string parent = ExistingParent(out);
  // Rights are not all that a file system refuses by: /proc takes no folder of root's either.
  if (IsDirectory(parent) && ::access(parent.c_str(), W_OK | X_OK) == 0) {
    const absl::Status made = TempDirectory::Create(parent).status();
    if (made.ok() || absl::IsResourceExhausted(made)) return absl::OkStatus();
  }
  return Failure(reasons::kPermissionDenied,
                 absl::StrCat("--out ", LogSafe(out), " cannot be made: ", LogSafe(parent),
                              " is no folder that you may write"));
}

absl::Status CheckOutputRoom(const std::string& out, int64_t bytes) {
  struct statvfs disk;
  const std::string parent = ExistingParent(out);
  if (::statvfs(parent.c_str(), &disk) != 0) return absl::OkStatus();
  const auto room = static_cast<int64_t>(disk.f_frsize) * static_cast<int64_t>(disk.f_bavail);
  if (room >= bytes) return absl::OkStatus();
  return Failure(reasons::kStorageFull, absl::StrCat("the artifact is to take ", bytes,
                                                     " bytes, and ", room, " are free at ",
                                                     LogSafe(parent)));
}

absl::Status CheckOutput(const std::string& out) {
  if (!IsFileOutput(out)) return CheckOutputFree(out);
  if (!FileExists(out)) return absl::OkStatus();
  return Failure(reasons::kOutputExists, absl::StrCat(out, " exists"));
}

absl::Status Publish(const std::string& staging, const std::string& out) {
  if (!IsFileOutput(out)) return PublishDirectory(staging, out);
  LWQ_RETURN_IF_ERROR(CheckOutput(out));
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(staging));
  std::vector<std::string> files;
  for (const std::string& name : names) {
    if (!absl::StartsWith(name, "lwq-") && name != "README.md") files.push_back(name);
  }
  if (files.size() != 1 || !IsFileOutput(files[0])) {
    return Failure(reasons::kUsage,
                   absl::StrCat("--out ", LogSafe(out),
                                " names a file, and this artifact is a directory "
                                "of several: give a directory, or --for llama.cpp"));
  }
  const std::string parent = Dirname(out);
  LWQ_RETURN_IF_ERROR(MakeDirectories(parent));
  for (const std::string& name : names) {
    if (name == files[0]) continue;
    LWQ_RETURN_IF_ERROR(MoveFile(JoinPath(staging, name), ProofPath(out, name)));
  }
  LWQ_RETURN_IF_ERROR(MoveFile(JoinPath(staging, files[0]), out));
  LWQ_RETURN_IF_ERROR(SyncDirectory(parent));
  return RemoveAll(staging);
}

absl::Status PublishDirectory(const std::string& staging, const std::string& directory) {
  LWQ_RETURN_IF_ERROR(CheckOutputFree(directory));
  const std::string parent = Dirname(directory);
  LWQ_RETURN_IF_ERROR(MakeDirectories(parent));
  // rename(2) replaces an empty directory and refuses any other.
  if (::rename(staging.c_str(), directory.c_str()) == 0) return SyncDirectory(parent);
  if (errno != EXDEV) {
    return absl::ErrnoToStatus(errno, absl::StrCat("renaming ", staging, " to ", directory));
  }
  const std::string partial = absl::StrCat(directory, kPartial);
  absl::Status status = CopyDirectory(staging, partial);
  if (status.ok() && ::rename(partial.c_str(), directory.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("renaming ", partial, " to ", directory));
  }
  if (!status.ok()) {
    RemoveAll(partial).IgnoreError();
    return status;
  }
  LWQ_RETURN_IF_ERROR(SyncDirectory(parent));
  return RemoveAll(staging);
}

}  // namespace lwq::client
