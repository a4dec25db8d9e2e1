// Blobs that tenants have sent. Content is stored once, whoever sends it; that it is there is told
// to those alone who have sent it, whole, themselves.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/blob/blob_store.h"
#include "server/service/guard.h"
#include "server/service/scheduler.h"

namespace lwq {

// Of `ids`, those that are not there as far as the caller may know.
absl::StatusOr<std::vector<BlobId>> MissingFor(Scheduler& scheduler, const Caller& caller,
                                               const std::vector<BlobId>& ids);
absl::StatusOr<bool> HasFor(Scheduler& scheduler, const Caller& caller, const BlobId& id);

// How much of an upload need not be sent again.
absl::StatusOr<int64_t> UploadedFor(Scheduler& scheduler, const Caller& caller, const BlobId& id);
// Takes an upload. RESOURCE_EXHAUSTED "QUOTA_EXCEEDED" where the caller's tenant has no room for
// it. Who sends what another has sent sends all of it, and nothing is stored.
absl::StatusOr<std::unique_ptr<BlobWriter>> OpenUpload(Scheduler& scheduler, const Caller& caller,
                                                       const BlobId& id);
// Once an upload is finished, or was found to be there. Nothing for a worker's.
absl::Status NoteUpload(Scheduler& scheduler, const Caller& caller, const BlobId& id);

// The size of an upload whose row has no value any more.
int64_t UploadedBytes(const Record& row);

}  // namespace lwq
