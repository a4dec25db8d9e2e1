// The worker's local copies of blobs: fetched from and uploaded to the server's BlobService,
// verified, bounded in size. One task at a time uses it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "grpcpp/channel.h"
#include "proto/lwq/v1/artifact_service.grpc.pb.h"
#include "worker/runner/blob_access.h"

namespace lwq {

class BlobCache : public BlobAccess {
 public:
  // Files live under `directory`; whatever earlier runs left there is used again or deleted.
  static absl::StatusOr<std::unique_ptr<BlobCache>> Open(const std::string& directory,
                                                         std::shared_ptr<grpc::Channel> channel,
                                                         int64_t max_bytes);

  absl::StatusOr<std::string> Fetch(const v1::BlobRef& blob) override;
  absl::StatusOr<v1::BlobRef> Store(const std::string& path) override;
  std::string ScratchDirectory() const override { return scratch_; }

  // Empties the scratch directory and deletes the longest unused blobs past the limit. Call between
  // tasks.
  absl::Status EndTask();

 private:
  BlobCache(std::string directory, std::shared_ptr<grpc::Channel> channel, int64_t max_bytes);
  std::string PathOf(const std::string& sha256) const;
  absl::Status Download(const v1::BlobRef& blob, const std::string& path);
  absl::Status Upload(const v1::BlobRef& blob, const std::string& path);
  absl::Status UploadFrom(const v1::BlobRef& blob, const std::string& path, int64_t offset);

  const std::string blobs_;
  const std::string scratch_;
  const int64_t max_bytes_;
  const std::unique_ptr<v1::BlobService::Stub> stub_;
};

}  // namespace lwq
