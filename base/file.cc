#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/mapping_guard.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// A pipe without a writer would be waited for at its opening, before anybody sees what it is.
constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

absl::Status PosixError(int error, absl::string_view doing, absl::string_view path) {
  return absl::ErrnoToStatus(error, absl::StrCat(doing, " ", path));
}

}  // namespace

std::string JoinPath(absl::string_view a, absl::string_view b) {
  if (a.empty()) return std::string(b);
  if (b.empty()) return std::string(a);
  if (absl::StartsWith(b, "/")) b.remove_prefix(1);
  return absl::StrCat(a, absl::EndsWith(a, "/") ? "" : "/", b);
}

std::string Basename(absl::string_view path) {
  while (path.size() > 1 && absl::EndsWith(path, "/")) path.remove_suffix(1);
  size_t slash = path.rfind('/');
  return std::string(slash == absl::string_view::npos ? path : path.substr(slash + 1));
}

std::string Dirname(absl::string_view path) {
  while (path.size() > 1 && absl::EndsWith(path, "/")) path.remove_suffix(1);
  size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) return ".";
  return slash == 0 ? "/" : std::string(path.substr(0, slash));
}

bool FileExists(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0;
}

bool IsDirectory(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

absl::StatusOr<int64_t> FileSize(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return PosixError(errno, "reading the size of", path);
  return static_cast<int64_t>(info.st_size);
}

absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) {
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) return PosixError(errno, "listing", path);
  std::vector<std::string> names;
  while (dirent* entry = ::readdir(directory)) {
    absl::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  ::closedir(directory);
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return PosixError(error.value(), "making the directory", path);
  return absl::OkStatus();
}

absl::Status RemoveAll(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return PosixError(error.value(), "deleting", path);
  return absl::OkStatus();
}

absl::Status RenameFile(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    return PosixError(errno, "renaming", absl::StrCat(from, " to ", to));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  int fd = ::open(path.c_str(), kReadFlags);
  if (fd < 0) return PosixError(errno, "opening", path);
  struct stat info;
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  if (info.st_size > max_bytes) {
    ::close(fd);
    return absl::InvalidArgumentError(absl::StrCat("reading ", path, ": it has ", info.st_size,
                                                   " bytes, at most ", max_bytes, " are accepted"));
  }
  std::string content(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < content.size()) {
    ssize_t n = ::read(fd, content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  int error = errno;
  ::close(fd);
  if (done != content.size()) {
    return done == 0 && error != 0 ? PosixError(error, "reading", path)
                                   : absl::DataLossError(absl::StrCat(path, " shrank while read"));
  }
  return content;
}

absl::Status SyncDirectory(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return PosixError(errno, "opening the directory", path);
  int result = ::fsync(fd);
  int error = errno;
  ::close(fd);
  if (result != 0) return PosixError(error, "flushing the directory", path);
  return absl::OkStatus();
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view content) {
  const std::string temporary = absl::StrCat(path, ".tmp.", ::getpid());
  absl::Status status = [&]() -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(auto writer, FileWriter::Create(temporary));
    LWQ_RETURN_IF_ERROR(writer->Append(content));
    LWQ_RETURN_IF_ERROR(writer->Finish());
    LWQ_RETURN_IF_ERROR(RenameFile(temporary, path));
    return SyncDirectory(Dirname(path));
  }();
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

bool IsPlainFileName(absl::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.size() > 255) return false;
  return std::none_of(name.begin(), name.end(), [](char c) {
    return c == '/' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
}

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  int fd = ::open(path.c_str(), kReadFlags);
  if (fd < 0) return PosixError(errno, "opening", path);
  struct stat info;
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = nullptr;
  if (size > 0) {
    data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      int error = errno;
      ::close(fd);
      return PosixError(error, "mapping", path);
    }
  }
  ::close(fd);
  GuardMapping(data, size);
  return std::unique_ptr<MappedFile>(new MappedFile(path, static_cast<const uint8_t*>(data), size));
}

MappedFile::~MappedFile() {
  UnguardMapping(data_);
  if (size_ > 0) ::munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::Forget(size_t offset, size_t size) const {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = std::min(offset + size, size_) / page * page;
  if (begin < end) ::madvise(const_cast<uint8_t*>(data_) + begin, end - begin, MADV_DONTNEED);
}

absl::StatusOr<std::unique_ptr<FileWriter>> FileWriter::Create(const std::string& path) {
  int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return PosixError(errno, "creating", path);
  return std::unique_ptr<FileWriter>(new FileWriter(path, fd));
}

FileWriter::~FileWriter() {
  if (fd_ >= 0) ::close(fd_);
}

absl::Status FileWriter::Append(absl::Span<const uint8_t> bytes) {
  const uint8_t* data = bytes.data();
  size_t left = bytes.size();
  while (left > 0) {
    ssize_t n = ::write(fd_, data, left);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return PosixError(errno, "writing", path_);
    data += n;
    left -= static_cast<size_t>(n);
  }
  size_ += static_cast<int64_t>(bytes.size());
  return absl::OkStatus();
}

absl::Status FileWriter::Append(absl::string_view bytes) {
  return Append(absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
}

absl::Status FileWriter::Finish() {
  if (::fsync(fd_) != 0) {
    const absl::Status failed = PosixError(errno, "flushing", path_);
    ::close(std::exchange(fd_, -1));
    return failed;
  }
  return Close();
}

absl::Status FileWriter::Close() {
  if (::close(std::exchange(fd_, -1)) != 0) return PosixError(errno, "closing", path_);
  return absl::OkStatus();
}

absl::StatusOr<TempDirectory> TempDirectory::Create(const std::string& parent) {
  const char* tmpdir = std::getenv("TMPDIR");
  std::string pattern =
      JoinPath(!parent.empty() ? parent : (tmpdir != nullptr ? tmpdir : "/tmp"), "lwq-XXXXXX");
  if (::mkdtemp(pattern.data()) == nullptr) {
    return PosixError(errno, "making a temporary directory", pattern);
  }
  return TempDirectory(std::move(pattern));
}

TempDirectory::~TempDirectory() {
  if (!path_.empty()) RemoveAll(path_).IgnoreError();
}

}  // namespace lwq
