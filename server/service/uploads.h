// Blobs that tenants have sent. Content is stored once, whoever sends it; that it is there, whole
// or in part, is told to those alone who have sent it themselves. Whether another tenant has it
// shows in nothing: who sends what is there sends all of it, and it is stored as if it were new.
// Operators and workers see what there is, and share their unfinished uploads.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/blob/blob_store.h"
#include "server/service/guard.h"
#include "server/service/scheduler.h"

namespace lwq {

// A row is written anew when its tenant is told that the blob is there, at most so often: one that
// a collection finds is as much older than its last use at most.
inline constexpr absl::Duration kUploadNoticed = absl::Minutes(5);

// Of `ids`, those that are not there as far as the caller may know. That the others are there is
// noted.
absl::StatusOr<std::vector<BlobId>> MissingFor(Scheduler& scheduler, const Caller& caller,
                                               const std::vector<BlobId>& ids);
// The same of one; nothing is noted.
absl::StatusOr<bool> HasFor(Scheduler& scheduler, const Caller& caller, const BlobId& id);

// How much of an upload need not be sent again.
absl::StatusOr<int64_t> UploadedFor(Scheduler& scheduler, const Caller& caller, const BlobId& id);
// Takes an upload, and notes it when it is finished. Its size is reserved, of the disk and of the
// tenant's bytes, for as long as the writer lives, and what it then leaves unfinished counts as the
// tenant's until it expires. RESOURCE_EXHAUSTED "QUOTA_EXCEEDED" where the caller's tenant has no
// room for it, here or at the end; otherwise as BlobStore::OpenUpload.
absl::StatusOr<std::unique_ptr<BlobWriter>> OpenUpload(Scheduler& scheduler, const Caller& caller,
                                                       const BlobId& id);
// Notes that the tenant has sent what is there, or has it in use again. QUOTA_EXCEEDED as above.
absl::Status NoteUpload(Scheduler& scheduler, const Caller& caller, const BlobId& id);
// The same where an upload was found to be there already. Nothing for what may be a task's.
absl::Status NoteUploadFound(Scheduler& scheduler, const Caller& caller, const BlobId& id);

// Tells the tenants' bytes what the blob store has of unfinished uploads. After a start, and after
// some have expired.
absl::Status CountUnfinished(Scheduler& scheduler);

// The size of an upload whose row has no value any more.
int64_t UploadedBytes(const Record& row);

}  // namespace lwq
