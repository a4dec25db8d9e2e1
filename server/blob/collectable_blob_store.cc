#include "server/blob/collectable_blob_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

using Uses = CollectableBlobStore::Uses;

// One use, for as long as it lives.
class Use {
 public:
  Use(std::shared_ptr<Uses> uses, std::string sha256)
      : uses_(std::move(uses)), sha256_(std::move(sha256)) {
    uses_->Begin(sha256_);
  }
  ~Use() { uses_->End(sha256_, counts_); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;
  void Count() { counts_ = true; }

 private:
  const std::shared_ptr<Uses> uses_;
  const std::string sha256_;
  bool counts_ = false;
};

class UsingReader : public BlobReader {
 public:
  UsingReader(std::unique_ptr<Use> use, std::unique_ptr<BlobReader> reader)
      : use_(std::move(use)), reader_(std::move(reader)) {}
  int64_t size_bytes() const override { return reader_->size_bytes(); }
  absl::StatusOr<std::string> Read(int64_t offset, int64_t limit) override {
    return reader_->Read(offset, limit);
  }

 private:
  const std::unique_ptr<Use> use_;
  const std::unique_ptr<BlobReader> reader_;
};

class UsingWriter : public BlobWriter {
 public:
  UsingWriter(std::unique_ptr<Use> use, std::unique_ptr<BlobWriter> writer)
      : use_(std::move(use)), writer_(std::move(writer)) {}
  int64_t committed_bytes() const override { return writer_->committed_bytes(); }
  absl::Status Append(absl::string_view bytes) override { return writer_->Append(bytes); }
  absl::Status Finish() override { return writer_->Finish(); }

 private:
  const std::unique_ptr<Use> use_;
  const std::unique_ptr<BlobWriter> writer_;
};

}  // namespace

void Uses::Begin(const std::string& sha256) {
  MutexLock lock(&mu_);
  while (deleting_.count(sha256) > 0) deleted_.Wait(&mu_);
  ++open_[sha256];
}

void Uses::End(const std::string& sha256, bool counts) {
  MutexLock lock(&mu_);
  auto open = open_.find(sha256);
  if (--open->second == 0) open_.erase(open);
  if (counts) used_at_[sha256] = clock_->Steady();
}

bool Uses::IsUsed(const std::string& sha256, absl::Duration since) const {
  if (open_.count(sha256) > 0) return true;
  auto used = used_at_.find(sha256);
  return used != used_at_.end() && used->second + grace_ > since;
}

bool Uses::InUse(const std::string& sha256, absl::Duration since) const {
  MutexLock lock(&mu_);
  return IsUsed(sha256, since);
}

void Uses::Forget(absl::Duration since) {
  MutexLock lock(&mu_);
  std::erase_if(used_at_, [&](const auto& use) { return use.second + grace_ <= since; });
}

bool Uses::BeginDelete(const std::string& sha256, absl::Duration since) {
  MutexLock lock(&mu_);
  return !IsUsed(sha256, since) && deleting_.insert(sha256).second;
}

void Uses::EndDelete(const std::string& sha256) {
  MutexLock lock(&mu_);
  deleting_.erase(sha256);
  deleted_.SignalAll();
}

CollectableBlobStore::CollectableBlobStore(std::unique_ptr<BlobStore> blobs, absl::Duration grace,
                                           Clock* clock)
    : blobs_(std::move(blobs)),
      grace_(grace),
      clock_(clock),
      uses_(std::make_shared<Uses>(grace, clock)) {}

CollectableBlobStore::~CollectableBlobStore() = default;

absl::Status CollectableBlobStore::Delete(const BlobId& id) { return Delete(id, clock_->Steady()); }

absl::Status CollectableBlobStore::Delete(const BlobId& id, absl::Duration since) {
  if (!uses_->BeginDelete(id.sha256, since)) {
    return Failure(reasons::kBlobInUse, absl::StrCat("blob ", id.sha256, " is in use"));
  }
  absl::Status deleted = blobs_->Delete(id);
  uses_->EndDelete(id.sha256);
  return deleted;
}

bool CollectableBlobStore::InUse(const BlobId& id, absl::Duration since) const {
  return uses_->InUse(id.sha256, since);
}

void CollectableBlobStore::ForgetUses(absl::Duration since) { uses_->Forget(since); }

absl::StatusOr<bool> CollectableBlobStore::Has(const BlobId& id) const {
  Use use(uses_, id.sha256);
  LWQ_ASSIGN_OR_RETURN(const bool there, blobs_->Has(id));
  if (there) use.Count();
  return there;
}

absl::StatusOr<std::vector<BlobId>> CollectableBlobStore::FindMissing(
    absl::Span<const BlobId> ids) const {
  std::vector<std::unique_ptr<Use>> uses;
  uses.reserve(ids.size());
  for (const BlobId& id : ids) uses.push_back(std::make_unique<Use>(uses_, id.sha256));
  LWQ_ASSIGN_OR_RETURN(std::vector<BlobId> missing, blobs_->FindMissing(ids));
  size_t next = 0;  // in the order asked
  for (size_t i = 0; i < ids.size(); ++i) {
    if (next < missing.size() && missing[next] == ids[i]) {
      ++next;
    } else {
      uses[i]->Count();
    }
  }
  return missing;
}

absl::StatusOr<std::unique_ptr<BlobReader>> CollectableBlobStore::OpenRead(const BlobId& id) {
  auto use = std::make_unique<Use>(uses_, id.sha256);
  LWQ_ASSIGN_OR_RETURN(auto reader, blobs_->OpenRead(id));
  use->Count();
  return std::make_unique<UsingReader>(std::move(use), std::move(reader));
}

absl::StatusOr<std::unique_ptr<BlobWriter>> CollectableBlobStore::OpenUpload(
    const BlobId& id, const std::string& owner) {
  auto use = std::make_unique<Use>(uses_, id.sha256);
  LWQ_ASSIGN_OR_RETURN(auto writer, blobs_->OpenUpload(id, owner));
  use->Count();
  return std::make_unique<UsingWriter>(std::move(use), std::move(writer));
}

std::optional<BlobGrant> CollectableBlobStore::GrantRead(const BlobId& id, absl::Duration life) {
  Use(uses_, id.sha256).Count();
  return blobs_->GrantRead(id, std::min(life, grace_));
}

std::optional<BlobGrant> CollectableBlobStore::GrantWrite(const BlobId& id, absl::Duration life) {
  Use(uses_, id.sha256).Count();
  return blobs_->GrantWrite(id, std::min(life, grace_));
}

}  // namespace lwq
