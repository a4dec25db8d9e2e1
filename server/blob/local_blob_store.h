// Blobs in a local folder: DIRECTORY/sha256/ab/cd/<hex>; unfinished ones in DIRECTORY/uploads, as
// <hex>.<owner>; wrong ones in DIRECTORY/quarantine, for people to look at. Several processes may
// share the folder: an upload is locked by its file.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "server/blob/blob_store.h"

namespace lwq {

struct DiskSpace {
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
};

struct LocalBlobOptions {
  // Nothing under the folder is made or moved, a damaged blob neither; for reading alone.
  bool read_only = false;
  // New uploads are refused when less than the smaller of the two would stay free.
  double min_free_share = 0.05;
  int64_t min_free_bytes = int64_t{2} << 30;
  // The system's, unless a test has a disk of its own.
  std::function<int(int fd)> sync;
  std::function<absl::StatusOr<DiskSpace>()> space;
};

class LocalBlobStore : public BlobStore {
 public:
  static absl::StatusOr<std::unique_ptr<LocalBlobStore>> Open(const std::string& directory,
                                                              const LocalBlobOptions& options = {});

  absl::StatusOr<bool> Has(const BlobId& id) const override;
  absl::StatusOr<std::unique_ptr<BlobReader>> OpenRead(const BlobId& id) override;
  absl::StatusOr<std::unique_ptr<BlobWriter>> OpenUpload(const BlobId& id,
                                                         const std::string& owner) override;
  absl::StatusOr<int64_t> UploadedBytesOf(const BlobId& id,
                                          const std::string& owner) const override;
  absl::StatusOr<std::vector<UploadStat>> ListUploads() const override;
  absl::StatusOr<int> ExpireUploads(absl::Time before) override;
  absl::Status Delete(const BlobId& id) override;
  absl::StatusOr<std::vector<BlobStat>> List(const std::string& after, int limit) const override;
  int64_t total_bytes() const override { return bytes_; }
  int64_t total_count() const override { return count_; }
  int64_t num_corrupt() const override { return num_corrupt_; }
  absl::StatusOr<int64_t> FreeBytes() const override;

  // The file of a blob, there or not.
  std::string PathOf(const BlobId& id) const;

 private:
  friend class LocalBlobWriter;  // local_blob_file.h
  LocalBlobStore(std::string directory, LocalBlobOptions options);
  std::string UploadPathOf(const BlobId& id, const std::string& owner) const;
  // Puts the finished file `from` in place, durably, or leaves nothing.
  absl::Status Install(const BlobId& id, const std::string& from);
  absl::Status SyncDirectory(const std::string& path) const;
  void QuarantineIfWrong(const BlobId& id);
  absl::Status Reserve(int64_t bytes);
  void Release(int64_t bytes);

  const std::string directory_;
  const LocalBlobOptions options_;
  mutable Mutex mu_;
  // What open uploads have yet to write.
  int64_t reserved_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::atomic<int64_t> bytes_{0};
  std::atomic<int64_t> count_{0};
  std::atomic<int64_t> num_corrupt_{0};
};

}  // namespace lwq
