#include "server/service/uploads.h"

#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/service/quotas.h"

namespace lwq {
namespace {

std::string KeyOf(const std::string& tenant, const std::string& sha256) {
  return absl::StrCat(tenant, "/", sha256);
}

// Of a blob that is there: that its sender has it too.
class Proof final : public BlobWriter {
 public:
  explicit Proof(BlobId id) : id_(std::move(id)) {}

  int64_t committed_bytes() const override { return num_bytes_; }
  absl::Status Append(absl::string_view bytes) override {
    num_bytes_ += static_cast<int64_t>(bytes.size());
    if (num_bytes_ > id_.size_bytes) {
      return Failure(reasons::kSizeExceeded,
                     absl::StrCat("blob ", id_.sha256, " has ", id_.size_bytes, " bytes, ",
                                  num_bytes_, " were sent"));
    }
    hash_.Update(bytes);
    return absl::OkStatus();
  }
  absl::Status Finish() override {
    if (num_bytes_ == id_.size_bytes && hash_.FinishHex() == id_.sha256) return absl::OkStatus();
    return Failure(reasons::kDigestMismatch,
                   absl::StrCat("what was sent is not blob ", id_.sha256));
  }

 private:
  const BlobId id_;
  Sha256 hash_;
  int64_t num_bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<BlobId>> MissingFor(Scheduler& scheduler, const Caller& caller,
                                               const std::vector<BlobId>& ids) {
  LWQ_ASSIGN_OR_RETURN(std::vector<BlobId> missing, scheduler.blobs().FindMissing(ids));
  if (caller.sees_all()) return missing;
  std::vector<std::string> keys;
  for (const BlobId& id : ids) keys.push_back(KeyOf(caller.tenant, id.sha256));
  LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows,
                       scheduler.store().GetMany(Table::kUploads, keys));
  std::set<std::string> sent;
  for (const Record& row : rows) sent.insert(row.key);
  const std::set<BlobId> gone(missing.begin(), missing.end());
  missing.clear();
  for (const BlobId& id : ids) {
    if (gone.count(id) > 0 || sent.count(KeyOf(caller.tenant, id.sha256)) == 0) {
      missing.push_back(id);
    }
  }
  return missing;
}

absl::StatusOr<bool> HasFor(Scheduler& scheduler, const Caller& caller, const BlobId& id) {
  if (caller.sees_all()) return scheduler.blobs().Has(id);
  LWQ_ASSIGN_OR_RETURN(const std::vector<BlobId> missing, MissingFor(scheduler, caller, {id}));
  return missing.empty();
}

absl::StatusOr<int64_t> UploadedFor(Scheduler& scheduler, const Caller& caller, const BlobId& id) {
  if (!caller.sees_all()) {
    LWQ_ASSIGN_OR_RETURN(const bool there, scheduler.blobs().Has(id));
    if (there) return 0;
  }
  return scheduler.blobs().UploadedBytes(id);
}

absl::StatusOr<std::unique_ptr<BlobWriter>> OpenUpload(Scheduler& scheduler, const Caller& caller,
                                                       const BlobId& id) {
  if (caller.role != kWorker) {
    LWQ_RETURN_IF_ERROR(CheckBytes(scheduler, caller.tenant, id.size_bytes));
  }
  if (!caller.sees_all()) {
    LWQ_ASSIGN_OR_RETURN(const bool there, scheduler.blobs().Has(id));
    if (there) return std::make_unique<Proof>(id);
  }
  return scheduler.blobs().OpenWrite(id);
}

int64_t UploadedBytes(const Record& row) {
  int64_t bytes = 0;
  return absl::SimpleAtoi(row.tag, &bytes) ? bytes : 0;
}

absl::Status NoteUpload(Scheduler& scheduler, const Caller& caller, const BlobId& id) {
  if (caller.role == kWorker) return absl::OkStatus();
  const std::string key = KeyOf(caller.tenant, id.sha256);
  LWQ_ASSIGN_OR_RETURN(const std::vector<Record> known,
                       scheduler.store().GetMany(Table::kUploads, {key}));
  if (!known.empty()) return absl::OkStatus();
  v1::UploadRecord upload;
  upload.set_tenant(caller.tenant);
  upload.mutable_blob()->set_sha256(id.sha256);
  upload.mutable_blob()->set_size_bytes(id.size_bytes);
  upload.set_created_us(scheduler.NowUs());
  Write write{.table = Table::kUploads, .expected_version = 0};
  write.record.key = key;
  write.record.tag = absl::StrCat(id.size_bytes);
  write.record.order = upload.created_us();
  write.record.tenant = caller.tenant;
  upload.SerializeToString(&write.record.value);
  absl::Status noted = scheduler.store().Commit({write});
  // Another call of the tenant has sent it meanwhile.
  if (ReasonOf(noted) == reasons::kVersionConflict.name) return absl::OkStatus();
  if (noted.ok()) scheduler.tenant_bytes().Add(caller.tenant, id.size_bytes);
  return noted;
}

}  // namespace lwq
