// Files with absl::Status: whole reads, durable writes, read-only mappings, confined paths.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lwq {

std::string JoinPath(absl::string_view a, absl::string_view b);
std::string Basename(absl::string_view path);
std::string Dirname(absl::string_view path);

bool FileExists(const std::string& path);
bool IsDirectory(const std::string& path);
absl::StatusOr<int64_t> FileSize(const std::string& path);

// Names (not paths) in a directory, sorted; "." and ".." left out.
absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path);

// Makes the directory and its parents; no error when it is there.
absl::Status MakeDirectories(const std::string& path);
// Deletes a file or a whole tree; no error when it is not there. Never follows links.
absl::Status RemoveAll(const std::string& path);
absl::Status RenameFile(const std::string& from, const std::string& to);

// Reads a regular file of at most `max_bytes`; a larger one is INVALID_ARGUMENT before any
// allocation. NOT_FOUND when it does not exist.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes);

// Durable replacement: temporary file in the same directory, write, fsync, rename, fsync of the
// directory. After OK the content survives a power cut; after an error `path` is as before.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view content);

// Flushes a directory's entries to disk.
absl::Status SyncDirectory(const std::string& path);

// True for a plain file name: not empty, no '/', not "." or "..", no NUL or control character.
bool IsPlainFileName(absl::string_view name);

// A read-only private mapping of a whole file. Thread-safe after construction. Pages count as file
// cache, not as anonymous memory.
class MappedFile {
 public:
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // Tells the kernel that [offset, offset + size) will not be read again soon.
  void Forget(size_t offset, size_t size) const;

 private:
  MappedFile(std::string path, const uint8_t* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  const std::string path_;
  const uint8_t* const data_;
  const size_t size_;
};

// Appends to a file through a descriptor. Finish() fsyncs and closes; Close() only closes, for files
// that need not survive a power cut. Not thread-safe. A writer destroyed before either leaves what
// was written.
class FileWriter {
 public:
  static absl::StatusOr<std::unique_ptr<FileWriter>> Create(const std::string& path);
  ~FileWriter();
  absl::Status Append(absl::Span<const uint8_t> bytes);
  absl::Status Append(absl::string_view bytes);
  absl::Status Finish();
  absl::Status Close();
  int64_t size() const { return size_; }

 private:
  FileWriter(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  const std::string path_;
  int fd_;
  int64_t size_ = 0;
};

// A directory that is deleted with everything in it when this object goes.
class TempDirectory {
 public:
  // Under `parent`, or under TMPDIR (/tmp) when it is empty.
  static absl::StatusOr<TempDirectory> Create(const std::string& parent = "");
  TempDirectory(TempDirectory&& other) noexcept : path_(std::move(other.path_)) {
    other.path_.clear();
  }
  TempDirectory& operator=(TempDirectory&&) = delete;
  ~TempDirectory();
  const std::string& path() const { return path_; }

 private:
  explicit TempDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace lwq
