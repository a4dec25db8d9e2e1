// Which blobs a worker may read: those that tasks which are leased now read. A worker's certificate
// or token opens nothing that it was not given work for.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/mutex.h"
#include "server/dispatch/dispatch_state.h"

namespace lwq {

// Thread-safe.
class LeaseBlobs {
 public:
  // Whether a live lease, whoever holds it, reads the blob: by its specification or by what the
  // tasks it depends on left. Called under the lock of `state`.
  bool IsRead(const DispatchState& state, const std::string& sha256);

 private:
  struct Lease {
    int64_t epoch = 0;
    std::set<std::string> blobs;
  };
  bool IsKnown(const DispatchState& state, const std::string& sha256) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Forgets leases that are over and reads those that are new.
  void Refresh(const DispatchState& state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  std::map<std::string, Lease> leases_ ABSL_GUARDED_BY(mu_);  // by task
  absl::flat_hash_map<std::string, std::set<std::string>> readers_
      ABSL_GUARDED_BY(mu_);  // tasks by blob
};

}  // namespace lwq
