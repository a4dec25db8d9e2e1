// Content by digest, in a local folder: blobs/sha256/ab/cd/<hex>. A blob is there or it is not; one
// that is there is whole, and stays as it is for ever.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/hash.h"
#include "base/mutex.h"

namespace lwq {

struct BlobId {
  std::string sha256;
  int64_t size_bytes = 0;
};
// INVALID_ARGUMENT "DIGEST_INVALID" unless it is 64 hexadecimal characters and a size of 0 to 256
// GiB.
absl::Status CheckBlobId(const BlobId& id);

// Reads of one blob; not thread-safe.
class BlobReader {
 public:
  ~BlobReader();
  int64_t size_bytes() const { return size_; }
  // At most `limit` bytes from `offset`; "" at the end. DATA_LOSS "BLOB_CORRUPT" when the file is
  // shorter than it was.
  absl::StatusOr<std::string> Read(int64_t offset, int64_t limit);

 private:
  friend class BlobStore;
  BlobReader(int fd, int64_t size) : fd_(fd), size_(size) {}
  const int fd_;
  const int64_t size_;
};

class BlobStore;

// One upload. What was written stays when it is given up, and a later writer goes on from there;
// one writer of a blob at a time. Not thread-safe.
class BlobWriter {
 public:
  ~BlobWriter();
  int64_t committed_bytes() const { return size_; }
  // INVALID_ARGUMENT "SIZE_EXCEEDED" past the declared size; RESOURCE_EXHAUSTED "STORAGE_FULL".
  absl::Status Append(absl::string_view bytes);
  // Checks size and digest, flushes and puts it in place. INVALID_ARGUMENT "DIGEST_MISMATCH" drops
  // what was written. After OK the blob survives a power cut.
  absl::Status Finish();

 private:
  friend class BlobStore;
  BlobWriter(BlobStore* store, BlobId id, std::string path, int fd)
      : store_(store), id_(std::move(id)), path_(std::move(path)), fd_(fd) {}
  absl::Status Resume();

  BlobStore* const store_;
  const BlobId id_;
  const std::string path_;  // of the unfinished file
  int fd_;
  int64_t size_ = 0;
  Sha256 hash_;
};

struct BlobStoreOptions {
  // New uploads are refused when less than the smaller of the two would stay free.
  double min_free_share = 0.05;
  int64_t min_free_bytes = int64_t{2} << 30;
};

// Thread-safe.
class BlobStore {
 public:
  static absl::StatusOr<std::unique_ptr<BlobStore>> Open(const std::string& directory,
                                                         const BlobStoreOptions& options = {});

  // Whether the blob is there at its size. An error is the medium's, never absence.
  absl::StatusOr<bool> Has(const BlobId& id) const;
  // NOT_FOUND "BLOB_MISSING".
  absl::StatusOr<std::unique_ptr<BlobReader>> OpenRead(const BlobId& id) const;
  // UNAVAILABLE "UPLOAD_BUSY" while another writer of the same blob lives.
  absl::StatusOr<std::unique_ptr<BlobWriter>> OpenWrite(const BlobId& id);
  // Bytes that an unfinished upload has, 0 without one.
  absl::StatusOr<int64_t> UploadedBytes(const BlobId& id) const;
  // A whole small blob.
  absl::StatusOr<BlobId> Put(absl::string_view content);

  // Counted at start and kept since.
  int64_t total_bytes() const;
  int64_t total_count() const;
  absl::StatusOr<int64_t> FreeBytes() const;

 private:
  friend class BlobWriter;
  BlobStore(std::string directory, const BlobStoreOptions& options)
      : directory_(std::move(directory)), options_(options) {}
  std::string PathOf(const BlobId& id) const;
  std::string UploadPathOf(const BlobId& id) const;
  absl::Status CheckSpace(int64_t wanted) const;
  void Count(int64_t bytes);
  void CloseUpload(const std::string& sha256);

  const std::string directory_;
  const BlobStoreOptions options_;
  mutable Mutex mu_;
  std::set<std::string> open_uploads_ ABSL_GUARDED_BY(mu_);
  int64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t count_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace lwq
