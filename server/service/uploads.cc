#include "server/service/uploads.h"

#include <map>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/service/quotas.h"
#include "server/service/record_writes.h"

namespace lwq {
namespace {

// Commits that lose to others at the same row.
constexpr int kAttempts = 3;
constexpr size_t kRowsACommit = 500;

std::string KeyOf(const std::string& tenant, const std::string& sha256) {
  return absl::StrCat(tenant, "/", sha256);
}

// Whether what the caller sends may be the result of a task, which no tenant's quota counts. Where
// nobody is asked, a client's uploads count from the moment at which a dataset names them.
bool MayBeATasks(const Caller& caller) { return caller.role == kWorker || caller.anonymous; }

// Whose unfinished uploads a caller goes on with.
std::string OwnerOf(const Caller& caller) { return caller.sees_all() ? "" : caller.tenant; }

Write WriteOf(const v1::UploadRecord& upload, int64_t version, int64_t now_us) {
  Write write{.table = Table::kUploads, .expected_version = version};
  write.record.key = KeyOf(upload.tenant(), upload.blob().sha256());
  write.record.tag = absl::StrCat(upload.blob().size_bytes());
  write.record.order = now_us;
  write.record.tenant = upload.tenant();
  upload.SerializeToString(&write.record.value);
  return write;
}

// Writes or refreshes the row. `reservation`: of a new row's bytes; null: one is made if need be.
absl::Status Note(Scheduler& scheduler, const std::string& tenant, const BlobId& id,
                  UploadReservation* reservation) {
  std::unique_ptr<UploadReservation> made;
  absl::Status noted;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    LWQ_ASSIGN_OR_RETURN(const std::vector<Record> known,
                         scheduler.store().GetMany(Table::kUploads, {KeyOf(tenant, id.sha256)}));
    const int64_t now_us = scheduler.NowUs();
    v1::UploadRecord upload;
    upload.set_tenant(tenant);
    upload.mutable_blob()->set_sha256(id.sha256);
    upload.mutable_blob()->set_size_bytes(id.size_bytes);
    upload.set_created_us(now_us);
    if (!known.empty()) {
      LWQ_ASSIGN_OR_RETURN(upload, ParseRecord<v1::UploadRecord>(Table::kUploads, known[0]));
    } else if (reservation == nullptr) {
      LWQ_ASSIGN_OR_RETURN(made, UploadReservation::Make(scheduler, tenant, id));
      reservation = made.get();
    } else {
      LWQ_RETURN_IF_ERROR(reservation->Check());
    }
    noted =
        scheduler.store().Commit({WriteOf(upload, known.empty() ? 0 : known[0].version, now_us)});
    if (noted.ok() && known.empty()) reservation->Settle();
    // Another call of the tenant, or a collection, was at it meanwhile.
    if (ReasonOf(noted) != reasons::kVersionConflict.name) return noted;
  }
  return noted;
}

// An upload of a tenant's.
class TenantWriter final : public BlobWriter {
 public:
  TenantWriter(Scheduler* scheduler, const Caller& caller, BlobId id,
               std::unique_ptr<UploadReservation> reservation, std::unique_ptr<BlobWriter> writer)
      : scheduler_(*scheduler),
        tenant_(caller.tenant),
        owner_(OwnerOf(caller)),
        id_(std::move(id)),
        reservation_(std::move(reservation)),
        writer_(std::move(writer)) {}
  ~TenantWriter() override {
    writer_.reset();
    if (reservation_ == nullptr || owner_.empty()) return;
    const absl::StatusOr<int64_t> left = scheduler_.blobs().UploadedBytesOf(id_, owner_);
    // Where nobody can tell, the worst.
    reservation_->SetLeft(left.ok() ? *left : id_.size_bytes);
  }

  int64_t committed_bytes() const override { return writer_->committed_bytes(); }
  absl::Status Append(absl::string_view bytes) override { return writer_->Append(bytes); }
  absl::Status Finish() override {
    LWQ_RETURN_IF_ERROR(writer_->Finish());
    return Note(scheduler_, tenant_, id_, reservation_.get());
  }

 private:
  Scheduler& scheduler_;
  const std::string tenant_;
  const std::string owner_;
  const BlobId id_;
  std::unique_ptr<UploadReservation> reservation_;  // null: its row counts already
  std::unique_ptr<BlobWriter> writer_;
};

// Writes rows anew that were last noticed long ago. Those that are gone are taken out of `rows`.
absl::Status Refresh(Scheduler& scheduler, std::map<std::string, Record>& rows) {
  const int64_t now_us = scheduler.NowUs();
  const int64_t old_us = now_us - absl::ToInt64Microseconds(kUploadNoticed);
  std::vector<Write> writes;
  const auto commit = [&]() -> absl::Status {
    absl::Status refreshed = scheduler.store().Commit(writes);
    if (ReasonOf(refreshed) != reasons::kVersionConflict.name) return refreshed;
    // One of them; the others are told that they are there, so each has to be written.
    for (const Write& write : writes) {
      refreshed = scheduler.store().Commit({write});
      if (refreshed.ok()) continue;
      if (ReasonOf(refreshed) != reasons::kVersionConflict.name) return refreshed;
      LWQ_ASSIGN_OR_RETURN(const std::vector<Record> now,
                           scheduler.store().GetMany(Table::kUploads, {write.record.key}));
      if (now.empty()) rows.erase(write.record.key);  // else somebody else noticed it
    }
    return absl::OkStatus();
  };
  std::vector<const Record*> old;
  for (const auto& [key, row] : rows) {
    if (row.order < old_us) old.push_back(&row);
  }
  for (size_t i = 0; i < old.size(); ++i) {
    LWQ_ASSIGN_OR_RETURN(const auto upload,
                         ParseRecord<v1::UploadRecord>(Table::kUploads, *old[i]));
    writes.push_back(WriteOf(upload, old[i]->version, now_us));
    if (writes.size() < kRowsACommit && i + 1 < old.size()) continue;
    LWQ_RETURN_IF_ERROR(commit());
    writes.clear();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BlobId>> Missing(Scheduler& scheduler, const Caller& caller,
                                            const std::vector<BlobId>& ids, bool refresh) {
  LWQ_ASSIGN_OR_RETURN(std::vector<BlobId> missing, scheduler.blobs().FindMissing(ids));
  if (caller.sees_all()) return missing;
  const std::set<BlobId> gone(missing.begin(), missing.end());
  std::vector<std::string> keys;
  for (const BlobId& id : ids) {
    if (gone.count(id) == 0) keys.push_back(KeyOf(caller.tenant, id.sha256));
  }
  LWQ_ASSIGN_OR_RETURN(std::vector<Record> found, scheduler.store().GetMany(Table::kUploads, keys));
  std::map<std::string, Record> sent;
  for (Record& row : found) {
    const std::string key = row.key;
    sent.emplace(key, std::move(row));
  }
  if (refresh) LWQ_RETURN_IF_ERROR(Refresh(scheduler, sent));
  missing.clear();
  for (const BlobId& id : ids) {
    if (sent.count(KeyOf(caller.tenant, id.sha256)) == 0) missing.push_back(id);
  }
  return missing;
}

}  // namespace

absl::StatusOr<std::vector<BlobId>> MissingFor(Scheduler& scheduler, const Caller& caller,
                                               const std::vector<BlobId>& ids) {
  return Missing(scheduler, caller, ids, /*refresh=*/true);
}

absl::StatusOr<bool> HasFor(Scheduler& scheduler, const Caller& caller, const BlobId& id) {
  if (caller.sees_all()) return scheduler.blobs().Has(id);
  LWQ_ASSIGN_OR_RETURN(const std::vector<BlobId> missing,
                       Missing(scheduler, caller, {id}, /*refresh=*/false));
  return missing.empty();
}

absl::StatusOr<int64_t> UploadedFor(Scheduler& scheduler, const Caller& caller, const BlobId& id) {
  return scheduler.blobs().UploadedBytesOf(id, OwnerOf(caller));
}

absl::StatusOr<std::unique_ptr<BlobWriter>> OpenUpload(Scheduler& scheduler, const Caller& caller,
                                                       const BlobId& id) {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  if (MayBeATasks(caller)) return scheduler.blobs().OpenWrite(id);
  // One whose row is there, its content lost, is counted.
  LWQ_ASSIGN_OR_RETURN(
      const std::vector<Record> known,
      scheduler.store().GetMany(Table::kUploads, {KeyOf(caller.tenant, id.sha256)}));
  std::unique_ptr<UploadReservation> reservation;
  if (known.empty()) {
    LWQ_ASSIGN_OR_RETURN(reservation, UploadReservation::Make(scheduler, caller.tenant, id));
  }
  LWQ_ASSIGN_OR_RETURN(auto writer, scheduler.blobs().OpenUpload(id, OwnerOf(caller)));
  return std::make_unique<TenantWriter>(&scheduler, caller, id, std::move(reservation),
                                        std::move(writer));
}

absl::Status CountUnfinished(Scheduler& scheduler) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<UploadStat> uploads, scheduler.blobs().ListUploads());
  scheduler.tenant_bytes().SetUnfinished(uploads);
  return absl::OkStatus();
}

int64_t UploadedBytes(const Record& row) {
  int64_t bytes = 0;
  return absl::SimpleAtoi(row.tag, &bytes) ? bytes : 0;
}

absl::Status NoteUploadFound(Scheduler& scheduler, const Caller& caller, const BlobId& id) {
  if (MayBeATasks(caller)) return absl::OkStatus();
  return NoteUpload(scheduler, caller, id);
}

absl::Status NoteUpload(Scheduler& scheduler, const Caller& caller, const BlobId& id) {
  return Note(scheduler, caller.tenant, id, nullptr);
}

}  // namespace lwq
