// Deletes what no longer has to be kept: records past their time, then blobs that no record needs.
// What a record needs is every BlobRef in it. Blobs are marked by all rows that stay (tasks first,
// because what a task holds moves on to other rows in the commit that deletes it), and then swept,
// but for those that were written, used or asked for within the grace period before the marking
// began, or before the oldest task that still runs was handed out: what their records are may be
// about to be written.
#pragma once

#include <atomic>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/lwq/v1/admin_service.pb.h"
#include "server/blob/collectable_blob_store.h"
#include "server/service/scheduler.h"

namespace lwq {

// How long records are kept; the default of what users made is for ever.
struct Retention {
  absl::Duration jobs = absl::InfiniteDuration();       // after they ended, with their artifact
  absl::Duration artifacts = absl::InfiniteDuration();  // after they were made
  absl::Duration cache = absl::Hours(30 * 24);          // results, after they were last used
  absl::Duration requests = absl::Hours(7 * 24);        // request_ids, after they came
  absl::Duration blob_grace = absl::Hours(1);
};

// Thread-safe. `scheduler` and `blobs`, which is the scheduler's, outlive
// this.
class Collector {
 public:
  Collector(Scheduler* scheduler, CollectableBlobStore* blobs, const Retention& retention)
      : scheduler_(scheduler), blobs_(blobs), retention_(retention) {}

  // `dry_run`: says what would go. What fails in the middle is done by the next. ABORTED
  // "COLLECTION_RUNNING" while another goes on. It gives up, having deleted a part, when the server
  // drains (UNAVAILABLE "DRAINING") and when another server leads ("NOT_LEADER").
  absl::StatusOr<v1::CollectGarbageResponse> Collect(bool dry_run);

 private:
  absl::StatusOr<v1::CollectGarbageResponse> CollectAlone(bool dry_run);

  Scheduler* const scheduler_;
  CollectableBlobStore* const blobs_;
  const Retention retention_;
  std::atomic<bool> running_{false};
};

}  // namespace lwq
