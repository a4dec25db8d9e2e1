// How many bytes each tenant has stored: what it has sent, its artifacts, and its uploads that are
// under way or were broken off. Counted in memory; the records and the blob store are what is true.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "server/blob/blob_store.h"
#include "server/store/store.h"

namespace lwq {

// Thread-safe.
class TenantBytes {
 public:
  // From the records.
  absl::Status Load(Store& store);
  // What the blob store has of uploads that nobody goes on with. After a start and after an expiry.
  void SetUnfinished(const std::vector<UploadStat>& uploads);

  void Add(const std::string& tenant, int64_t bytes);  // below 0: so many fewer
  // With what is reserved.
  int64_t Of(const std::string& tenant) const;
  std::map<std::string, int64_t> All() const;

  // An upload of so many bytes begins. They count from now on, in the place of what an earlier call
  // left of it. False, and nothing changes, where the tenant would have more than `most` (0: any).
  bool Reserve(const std::string& tenant, const std::string& sha256, int64_t bytes, int64_t most);
  // It ends: as stored.
  void Settle(const std::string& tenant, const std::string& sha256, int64_t bytes);
  // It ends, and leaves so much that counts on; none: it left what was there before.
  void Release(const std::string& tenant, const std::string& sha256, int64_t bytes,
               std::optional<int64_t> left);

 private:
  struct Upload {
    int num_open = 0;
    int64_t open_bytes = 0;
    int64_t left_bytes = 0;  // by a call that has ended
    int64_t counted() const { return num_open > 0 ? open_bytes : left_bytes; }
  };
  using Key = std::pair<std::string, std::string>;  // tenant and digest
  void End(const Key& key, int64_t bytes, std::optional<int64_t> left)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int64_t Sum(const std::string& tenant) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  std::map<std::string, int64_t> bytes_ ABSL_GUARDED_BY(mu_);
  std::map<Key, Upload> uploads_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int64_t> unfinished_ ABSL_GUARDED_BY(mu_);  // of uploads_, by tenant
};

}  // namespace lwq
