// Blobs that are gone when the store goes: for tests and simulations.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "server/blob/blob_store.h"

namespace lwq {

class MemoryBlobStore : public BlobStore {
 public:
  // `clock` outlives the store.
  explicit MemoryBlobStore(int64_t capacity_bytes = INT64_MAX, Clock* clock = Clock::Real());

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
  int64_t total_bytes() const override;
  int64_t total_count() const override;
  int64_t num_corrupt() const override;
  absl::StatusOr<int64_t> FreeBytes() const override;

  // What a bad disk does: one bit of byte `offset` is not what was written.
  void FlipBit(const BlobId& id, int64_t offset);

 private:
  friend class MemoryBlobWriter;
  struct Blob {
    std::shared_ptr<const std::string> content;
    absl::Time written;
  };
  using UploadKey = std::pair<std::string, std::string>;  // digest and owner
  struct Upload {
    std::string content;
    absl::Time written;
    int64_t reserved_bytes = 0;  // of its writer, with what is written; 0: it has none
    bool open = false;
  };
  void Quarantine(const BlobId& id);
  int64_t UsedBytes() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int64_t capacity_bytes_;
  Clock* const clock_;
  mutable Mutex mu_;
  std::map<std::string, Blob> blobs_ ABSL_GUARDED_BY(mu_);
  std::map<UploadKey, Upload> uploads_ ABSL_GUARDED_BY(mu_);
  int64_t num_corrupt_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace lwq
