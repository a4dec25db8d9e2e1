// Weights that stay prepared on the device between the passes of a decoder, as far as there is
// room: a layer that fits is read, widened and prepared once per task and not once per pass.
//
// What came first stays. Passes go through the layers in the same order again and again, and where
// not all fit, dropping the one that was used longest ago would drop each just before its turn.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "worker/engine/device/device.h"

namespace lwq {

// Not thread-safe.
class WeightCache {
 public:
  using Weight = std::shared_ptr<const PreparedWeight>;

  // For as many bytes, as PreparedWeight::size_bytes counts them; 0: nothing is kept.
  void set_limit_bytes(int64_t bytes) { limit_bytes_ = bytes; }
  int64_t limit_bytes() const { return limit_bytes_; }
  int64_t used_bytes() const { return used_bytes_; }
  // The weight of that name; `load` makes one that is not kept. Its errors are not kept either.
  absl::StatusOr<Weight> Get(const std::string& name,
                             absl::FunctionRef<absl::StatusOr<Weight>()> load);

 private:
  int64_t limit_bytes_ = 0;
  int64_t used_bytes_ = 0;
  absl::flat_hash_map<std::string, Weight> kept_;
};

}  // namespace lwq
