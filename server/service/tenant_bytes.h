// How many bytes each tenant has stored: what it has sent, and its artifacts. Counted in memory;
// the records are what is true.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "server/store/store.h"

namespace lwq {

// Thread-safe.
class TenantBytes {
 public:
  // From the records.
  absl::Status Load(Store& store);
  void Add(const std::string& tenant, int64_t bytes);  // below 0: so many fewer
  int64_t Of(const std::string& tenant) const;
  std::map<std::string, int64_t> All() const;

 private:
  mutable Mutex mu_;
  std::map<std::string, int64_t> bytes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lwq
