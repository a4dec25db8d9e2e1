// A blob store from which somebody collects what nobody needs: a blob is deleted only when nobody
// reads or writes it, and nobody was told that it is there, within a grace period. So whoever asks
// first and counts on the answer (an upload that is left out, a result that names the blob) has
// that long to write down why the blob is needed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "server/blob/blob_store.h"

namespace lwq {

class CollectableBlobStore : public BlobStore {
 public:
  // `clock` outlives it.
  CollectableBlobStore(std::unique_ptr<BlobStore> blobs, absl::Duration grace, Clock* clock);
  ~CollectableBlobStore() override;

  // FAILED_PRECONDITION "BLOB_IN_USE" for a blob as above. When it was written is the caller's to
  // look at (BlobStat).
  absl::Status Delete(const BlobId& id) override;
  // The same for a collection that began to read the records at `since`, by the steady clock:
  // what was used in the grace period before it began stays for as long as it goes on, because the
  // record that needs it may have been written behind it.
  absl::Status Delete(const BlobId& id, absl::Duration since);
  // Whether that Delete would refuse it now.
  bool InUse(const BlobId& id, absl::Duration since) const;
  // Drops what no collection that began at `since` or later has to know. Each collection calls it;
  // nothing else drops uses.
  void ForgetUses(absl::Duration since);
  absl::Duration grace() const { return grace_; }

  absl::StatusOr<bool> Has(const BlobId& id) const override;
  absl::StatusOr<std::vector<BlobId>> FindMissing(absl::Span<const BlobId> ids) const override;
  absl::StatusOr<std::unique_ptr<BlobReader>> OpenRead(const BlobId& id) override;
  absl::StatusOr<std::unique_ptr<BlobWriter>> OpenUpload(const BlobId& id,
                                                         const std::string& owner) override;
  std::optional<BlobGrant> GrantRead(const BlobId& id, absl::Duration life) override;
  std::optional<BlobGrant> GrantWrite(const BlobId& id, absl::Duration life) override;

  absl::StatusOr<int64_t> UploadedBytesOf(const BlobId& id,
                                          const std::string& owner) const override {
    return blobs_->UploadedBytesOf(id, owner);
  }
  absl::StatusOr<std::vector<UploadStat>> ListUploads() const override {
    return blobs_->ListUploads();
  }
  absl::StatusOr<int> ExpireUploads(absl::Time before) override {
    return blobs_->ExpireUploads(before);
  }
  absl::StatusOr<std::vector<BlobStat>> List(const std::string& after, int limit) const override {
    return blobs_->List(after, limit);
  }
  int64_t total_bytes() const override { return blobs_->total_bytes(); }
  int64_t total_count() const override { return blobs_->total_count(); }
  int64_t num_corrupt() const override { return blobs_->num_corrupt(); }
  absl::StatusOr<int64_t> FreeBytes() const override { return blobs_->FreeBytes(); }

  // Who uses which blob. Thread-safe.
  class Uses {
   public:
    Uses(absl::Duration grace, Clock* clock) : grace_(grace), clock_(clock) {}
    // A use begins once nobody deletes the blob, and ends; from then on the grace period counts if
    // it was of use.
    void Begin(const std::string& sha256);
    void End(const std::string& sha256, bool counts);
    bool InUse(const std::string& sha256, absl::Duration since) const;
    // False when it is in use; after true nobody begins to use it until EndDelete.
    bool BeginDelete(const std::string& sha256, absl::Duration since);
    void EndDelete(const std::string& sha256);
    void Forget(absl::Duration since);

   private:
    bool IsUsed(const std::string& sha256, absl::Duration since) const
        ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

    const absl::Duration grace_;
    Clock* const clock_;
    mutable Mutex mu_;
    CondVar deleted_;
    std::map<std::string, int> open_ ABSL_GUARDED_BY(mu_);                // uses that go on
    std::map<std::string, absl::Duration> used_at_ ABSL_GUARDED_BY(mu_);  // when the last one ended
    std::set<std::string> deleting_ ABSL_GUARDED_BY(mu_);
  };

 private:
  const std::unique_ptr<BlobStore> blobs_;
  const absl::Duration grace_;
  Clock* const clock_;
  const std::shared_ptr<Uses> uses_;  // readers and writers hold it too
};

}  // namespace lwq
