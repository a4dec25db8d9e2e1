// Blobs in a bucket of S3 or of what speaks like it: PREFIX/sha256/<hex>, immutable. Blobs larger
// than a part are uploaded in parts and appear when the last is there and the digest of all is
// right; PREFIX/uploads/<hex>.<owner> says how far an upload is, so that another process goes on
// with it.
// docs/decisions/0020-s3-by-signed-urls.md.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "server/blob/blob_store.h"
#include "server/blob/s3_client.h"

namespace lwq {

struct S3BlobOptions {
  S3Location location;
  S3Credentials credentials;
  // A multiple of 64; S3 wants at least 5 MiB, and takes 10,000 parts.
  int64_t part_bytes = int64_t{32} << 20;
  Clock* clock = Clock::Real();  // outlives the store
};

class S3BlobStore : public BlobStore {
 public:
  // Fails when the bucket cannot be reached: errors are those of S3Client.
  static absl::StatusOr<std::unique_ptr<S3BlobStore>> Open(const S3BlobOptions& options);

  absl::StatusOr<bool> Has(const BlobId& id) const override;
  absl::StatusOr<std::vector<BlobId>> FindMissing(absl::Span<const BlobId> ids) const override;
  absl::StatusOr<std::unique_ptr<BlobReader>> OpenRead(const BlobId& id) override;
  absl::StatusOr<std::unique_ptr<BlobWriter>> OpenUpload(const BlobId& id,
                                                         const std::string& owner) override;
  absl::StatusOr<int64_t> UploadedBytesOf(const BlobId& id,
                                          const std::string& owner) const override;
  absl::StatusOr<std::vector<UploadStat>> ListUploads() const override;
  absl::StatusOr<int> ExpireUploads(absl::Time before) override;
  absl::Status Delete(const BlobId& id) override;
  absl::StatusOr<std::vector<BlobStat>> List(const std::string& after, int limit) const override;
  std::optional<BlobGrant> GrantRead(const BlobId& id, absl::Duration life) override;
  std::optional<BlobGrant> GrantWrite(const BlobId& id, absl::Duration life) override;
  int64_t total_bytes() const override { return bytes_; }
  int64_t total_count() const override { return count_; }
  int64_t num_corrupt() const override { return num_corrupt_; }
  absl::StatusOr<int64_t> FreeBytes() const override { return INT64_MAX; }

 private:
  friend class S3BlobWriter;  // s3_upload.h
  explicit S3BlobStore(const S3BlobOptions& options)
      : options_(options), s3_(options.location, options.credentials, options.clock) {}
  // S3 has no rename, so a wrong blob is deleted, after it was read once more.
  void DeleteIfWrong(const BlobId& id);
  absl::Status MarkOpen(const BlobId& id, const std::string& key);
  void MarkClosed(const std::string& key);
  // Whether anybody writes the blob.
  bool IsOpen(const std::string& sha256) const;

  const S3BlobOptions options_;
  mutable S3Client s3_;
  mutable Mutex mu_;
  // What each may buffer, by S3UploadKey.
  std::map<std::string, int64_t> open_uploads_ ABSL_GUARDED_BY(mu_);
  int64_t buffer_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::atomic<int64_t> bytes_{0};
  std::atomic<int64_t> count_{0};
  std::atomic<int64_t> num_corrupt_{0};
};

}  // namespace lwq
