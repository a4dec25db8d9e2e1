// Reading and writing one file of LocalBlobStore, and nobody else's.
#pragma once

#include <string>

#include "server/blob/local_blob_store.h"

namespace lwq {

// STORAGE_FULL for a full disk, BLOB_IO for all else.
absl::Status BlobIoError(int error, absl::string_view doing, absl::string_view path);

// Opens or makes `path` under a lock that ends with the descriptor, or with the process.
// UNAVAILABLE "UPLOAD_BUSY" while another descriptor, of this process or of another, holds it.
absl::StatusOr<int> OpenLockedFile(const std::string& path);

class LocalBlobReader : public BlobReader {
 public:
  LocalBlobReader(int fd, int64_t size) : fd_(fd), size_(size) {}
  ~LocalBlobReader() override;
  int64_t size_bytes() const override { return size_; }
  absl::StatusOr<std::string> Read(int64_t offset, int64_t limit) override;

 private:
  const int fd_;
  const int64_t size_;
};

class LocalBlobWriter : public BlobWriter {
 public:
  // `fd` is that of OpenLockedFile.
  LocalBlobWriter(LocalBlobStore* store, BlobId id, std::string path, int fd)
      : store_(store), id_(std::move(id)), path_(std::move(path)), fd_(fd) {}
  ~LocalBlobWriter() override;

  // Takes over what an earlier writer left.
  absl::Status Resume();
  // The space of what is still to come.
  absl::Status Reserve();

  int64_t committed_bytes() const override { return size_; }
  absl::Status Append(absl::string_view bytes) override;
  absl::Status Finish() override;

 private:
  // Forgets all that was written, and fails with `why`.
  absl::Status Drop(absl::Status why);

  LocalBlobStore* const store_;
  const BlobId id_;
  const std::string path_;  // of the unfinished file
  const int fd_;
  int64_t size_ = 0;
  int64_t reserved_bytes_ = 0;
  bool ended_ = false;  // finished, or dropped
  Sha256 hash_;
};

}  // namespace lwq
