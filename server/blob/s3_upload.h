// One upload to S3BlobStore, and nobody else's.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/blob/s3_blob_store.h"

namespace lwq {

std::string S3BlobKey(const std::string& sha256);
std::string S3UploadKey(const std::string& sha256, const std::string& owner);

// What PREFIX/uploads/<hex>.<owner> says: parts that S3 has, and the hash up to their end.
struct S3UploadState {
  std::string upload;
  int64_t size_bytes = 0;  // of the blob
  int64_t part_bytes = 0;
  std::string hash;  // Sha256::Save
  std::vector<S3Part> parts;

  std::string ToText() const;
  // INVALID_ARGUMENT for anything else than ToText's.
  static absl::StatusOr<S3UploadState> FromText(absl::string_view text);
  int64_t committed_bytes() const { return static_cast<int64_t>(parts.size()) * part_bytes; }
};

// The state of an unfinished upload of `id`, kept under `key`; an empty one when there is none that
// can be used.
absl::StatusOr<S3UploadState> LoadUploadState(S3Client& s3, const BlobId& id,
                                              const std::string& key, int64_t part_bytes);

class S3BlobWriter : public BlobWriter {
 public:
  // `state` is LoadUploadState's; the store has marked the upload as open.
  S3BlobWriter(S3BlobStore* store, BlobId id, std::string key, S3UploadState state);
  ~S3BlobWriter() override;

  int64_t committed_bytes() const override {
    return state_.committed_bytes() + static_cast<int64_t>(buffer_.size());
  }
  absl::Status Append(absl::string_view bytes) override;
  absl::Status Finish() override;

 private:
  absl::Status PutPart(absl::string_view part);
  absl::Status Store();
  absl::Status Drop(absl::Status why);

  S3BlobStore* const store_;
  const BlobId id_;
  const std::string key_;  // of the state
  S3UploadState state_;
  std::string buffer_;  // after the parts
  Sha256 hash_;         // of the parts
  bool ended_ = false;
};

}  // namespace lwq
