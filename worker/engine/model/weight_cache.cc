#include "worker/engine/model/weight_cache.h"

#include "base/status_macros.h"

namespace lwq {

absl::StatusOr<WeightCache::Weight> WeightCache::Get(
    const std::string& name, absl::FunctionRef<absl::StatusOr<Weight>()> load) {
  const auto kept = kept_.find(name);
  if (kept != kept_.end()) return kept->second;
  LWQ_ASSIGN_OR_RETURN(Weight weight, load());
  if (weight->size_bytes() <= limit_bytes_ - used_bytes_) {
    used_bytes_ += weight->size_bytes();
    kept_.emplace(name, weight);
  }
  return weight;
}

}  // namespace lwq
