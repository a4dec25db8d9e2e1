#include "server/blob/memory_blob_store.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/blob/verifying_reader.h"

namespace lwq {
namespace {

class MemoryReader : public BlobReader {
 public:
  explicit MemoryReader(std::shared_ptr<const std::string> content)
      : content_(std::move(content)) {}
  int64_t size_bytes() const override { return static_cast<int64_t>(content_->size()); }
  absl::StatusOr<std::string> Read(int64_t offset, int64_t limit) override {
    if (offset >= size_bytes() || limit <= 0) return std::string();
    return content_->substr(static_cast<size_t>(offset), static_cast<size_t>(limit));
  }

 private:
  const std::shared_ptr<const std::string> content_;
};

}  // namespace

class MemoryBlobWriter : public BlobWriter {
 public:
  MemoryBlobWriter(MemoryBlobStore* store, BlobId id, const std::string& owner)
      : store_(store), id_(std::move(id)), key_(id_.sha256, owner) {}
  ~MemoryBlobWriter() override {
    MutexLock lock(&store_->mu_);
    auto upload = store_->uploads_.find(key_);
    if (ended_ || upload == store_->uploads_.end()) return;
    upload->second.open = false;
    upload->second.reserved_bytes = 0;
  }

  int64_t committed_bytes() const override {
    MutexLock lock(&store_->mu_);
    auto upload = store_->uploads_.find(key_);
    return upload == store_->uploads_.end() ? 0
                                            : static_cast<int64_t>(upload->second.content.size());
  }

  absl::Status Append(absl::string_view bytes) override {
    if (ended_) return Failure(reasons::kUploadEnded, "the upload has ended: start again");
    MutexLock lock(&store_->mu_);
    auto upload = store_->uploads_.find(key_);
    std::string& content = upload->second.content;
    if (static_cast<int64_t>(content.size() + bytes.size()) > id_.size_bytes) {
      Drop();
      return Failure(reasons::kSizeExceeded,
                     absl::StrCat("uploading ", id_.sha256, ": more than the declared ",
                                  id_.size_bytes, " bytes; the upload is dropped"));
    }
    absl::StrAppend(&content, bytes);
    upload->second.written = store_->clock_->Now();
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    if (ended_) return Failure(reasons::kUploadEnded, "the upload has ended: start again");
    MutexLock lock(&store_->mu_);
    std::string content = std::move(store_->uploads_[key_].content);
    Drop();
    const BlobId found = BlobIdOf(content);
    if (found != id_) {
      return InvalidFailure(
          reasons::kDigestMismatch.name,
          absl::StrCat("uploading ", id_.sha256, " of ", id_.size_bytes, " bytes: the content is ",
                       found.sha256, " of ", found.size_bytes, " bytes; the upload is dropped"));
    }
    store_->blobs_[id_.sha256] = {std::make_shared<const std::string>(std::move(content)),
                                  store_->clock_->Now()};
    return absl::OkStatus();
  }

 private:
  void Drop() ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_->mu_) {
    ended_ = true;
    store_->uploads_.erase(key_);
  }

  MemoryBlobStore* const store_;
  const BlobId id_;
  const MemoryBlobStore::UploadKey key_;
  bool ended_ = false;
};

MemoryBlobStore::MemoryBlobStore(int64_t capacity_bytes, Clock* clock)
    : capacity_bytes_(capacity_bytes), clock_(clock) {}

absl::StatusOr<bool> MemoryBlobStore::Has(const BlobId& id) const {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  MutexLock lock(&mu_);
  auto blob = blobs_.find(id.sha256);
  return blob != blobs_.end() &&
         static_cast<int64_t>(blob->second.content->size()) == id.size_bytes;
}

absl::StatusOr<std::unique_ptr<BlobReader>> MemoryBlobStore::OpenRead(const BlobId& id) {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  MutexLock lock(&mu_);
  auto blob = blobs_.find(id.sha256);
  if (blob == blobs_.end()) {
    return Failure(reasons::kBlobMissing, absl::StrCat("no blob ", id.sha256));
  }
  auto reader = std::make_unique<MemoryReader>(blob->second.content);
  if (reader->size_bytes() != id.size_bytes) {
    return Failure(reasons::kBlobCorrupt,
                   absl::StrCat("blob ", id.sha256, " has ", reader->size_bytes(), " bytes, ",
                                id.size_bytes, " expected"));
  }
  return MakeVerifyingReader(id, std::move(reader), [this, id] { Quarantine(id); });
}

absl::StatusOr<std::unique_ptr<BlobWriter>> MemoryBlobStore::OpenUpload(const BlobId& id,
                                                                        const std::string& owner) {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  MutexLock lock(&mu_);
  const UploadKey key(id.sha256, owner);
  auto known = uploads_.find(key);
  if (known != uploads_.end() && known->second.open) {
    return Failure(reasons::kUploadBusy,
                   absl::StrCat("another call is uploading ", id.sha256, ": try again"));
  }
  const int64_t written =
      known == uploads_.end() ? 0 : static_cast<int64_t>(known->second.content.size());
  const int64_t free = capacity_bytes_ - UsedBytes();
  if (id.size_bytes - written > free) {
    return Failure(
        reasons::kStorageFull,
        absl::StrCat(free, " bytes free, ", id.size_bytes - written, " more are to be written"));
  }
  Upload& upload = uploads_[key];
  upload.open = true;
  upload.reserved_bytes = id.size_bytes;
  upload.written = clock_->Now();
  return std::make_unique<MemoryBlobWriter>(this, id, owner);
}

int64_t MemoryBlobStore::UsedBytes() const {
  int64_t used = 0;
  for (const auto& [digest, blob] : blobs_) used += static_cast<int64_t>(blob.content->size());
  for (const auto& [key, upload] : uploads_) {
    used += std::max(upload.reserved_bytes, static_cast<int64_t>(upload.content.size()));
  }
  return used;
}

absl::StatusOr<int64_t> MemoryBlobStore::UploadedBytesOf(const BlobId& id,
                                                         const std::string& owner) const {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  MutexLock lock(&mu_);
  auto upload = uploads_.find({id.sha256, owner});
  return upload == uploads_.end() ? 0 : static_cast<int64_t>(upload->second.content.size());
}

absl::StatusOr<std::vector<UploadStat>> MemoryBlobStore::ListUploads() const {
  MutexLock lock(&mu_);
  std::vector<UploadStat> uploads;
  for (const auto& [key, upload] : uploads_) {
    uploads.push_back({key.first, key.second, static_cast<int64_t>(upload.content.size())});
  }
  return uploads;
}

absl::StatusOr<int> MemoryBlobStore::ExpireUploads(absl::Time before) {
  MutexLock lock(&mu_);
  return static_cast<int>(std::erase_if(uploads_, [&](const auto& entry) {
    return !entry.second.open && entry.second.written < before;
  }));
}

absl::Status MemoryBlobStore::Delete(const BlobId& id) {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  MutexLock lock(&mu_);
  blobs_.erase(id.sha256);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BlobStat>> MemoryBlobStore::List(const std::string& after,
                                                            int limit) const {
  MutexLock lock(&mu_);
  std::vector<BlobStat> found;
  for (auto blob = blobs_.upper_bound(after);
       blob != blobs_.end() && static_cast<int>(found.size()) < limit; ++blob) {
    found.push_back(
        {{blob->first, static_cast<int64_t>(blob->second.content->size())}, blob->second.written});
  }
  return found;
}

int64_t MemoryBlobStore::total_bytes() const {
  MutexLock lock(&mu_);
  int64_t total = 0;
  for (const auto& [digest, blob] : blobs_) total += static_cast<int64_t>(blob.content->size());
  return total;
}

int64_t MemoryBlobStore::total_count() const {
  MutexLock lock(&mu_);
  return static_cast<int64_t>(blobs_.size());
}

int64_t MemoryBlobStore::num_corrupt() const {
  MutexLock lock(&mu_);
  return num_corrupt_;
}

absl::StatusOr<int64_t> MemoryBlobStore::FreeBytes() const {
  MutexLock lock(&mu_);
  return capacity_bytes_ - UsedBytes();
}

void MemoryBlobStore::FlipBit(const BlobId& id, int64_t offset) {
  MutexLock lock(&mu_);
  Blob& blob = blobs_.at(id.sha256);
  std::string content = *blob.content;
  content[static_cast<size_t>(offset)] ^= 1;
  blob.content = std::make_shared<const std::string>(std::move(content));
}

void MemoryBlobStore::Quarantine(const BlobId& id) {
  MutexLock lock(&mu_);
  auto blob = blobs_.find(id.sha256);
  if (blob == blobs_.end() || Sha256Hex(*blob->second.content) == id.sha256) return;
  blobs_.erase(blob);
  ++num_corrupt_;
}

}  // namespace lwq
