// What a tenant may have: checked before it gets more. Failures name the tenant and the limit
// (QuotaFailure).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/blob/blob_store.h"
#include "server/dispatch/dispatch_state.h"
#include "server/service/scheduler.h"

namespace lwq {

// One more job that waits. RESOURCE_EXHAUSTED "QUOTA_EXCEEDED". In the transaction that adds it.
absl::Status CheckQueuedJobs(const Draft& draft, const std::string& tenant);
// One more model. Their inventories lie in the server's memory, of whatever size models may have.
absl::Status CheckModels(const Draft& draft, const std::string& tenant);
// So many bytes more.
absl::Status CheckBytes(const Scheduler& scheduler, const std::string& tenant, int64_t more);

// Bytes of an upload that begins: reserved until the reservation ends.
class UploadReservation {
 public:
  // RESOURCE_EXHAUSTED "QUOTA_EXCEEDED" where they would be more than the tenant may have beside
  // what it has stored and what its other uploads reserve. `scheduler` outlives it.
  static absl::StatusOr<std::unique_ptr<UploadReservation>> Make(Scheduler& scheduler,
                                                                 const std::string& tenant,
                                                                 const BlobId& id);
  ~UploadReservation();
  UploadReservation(const UploadReservation&) = delete;
  UploadReservation& operator=(const UploadReservation&) = delete;

  // Whether there is room still: an artifact may have taken it meanwhile.
  absl::Status Check() const;
  // The upload is stored, and counts as that.
  void Settle();
  // What counts on when the reservation ends; unless told, what counted before it.
  void SetLeft(int64_t bytes) { left_ = bytes; }

 private:
  UploadReservation(Scheduler* scheduler, std::string tenant, BlobId id)
      : scheduler_(scheduler), tenant_(std::move(tenant)), id_(std::move(id)) {}

  Scheduler* const scheduler_;
  const std::string tenant_;
  const BlobId id_;
  std::optional<int64_t> left_;
  bool settled_ = false;
};

}  // namespace lwq
