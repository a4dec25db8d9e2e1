// What calibration left of one layer, for those who declared it. See collector.h for what there is.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/device/device.h"
#include "worker/engine/model/layer_spec.h"

namespace lwq {

// Read when asked for; nothing is kept. What was not collected is NOT_FOUND "EVIDENCE_MISSING".
// Thread-safe.
class LayerEvidence {
 public:
  virtual ~LayerEvidence() = default;
  // How many tokens the inputs were watched for; 0 where there was no calibration.
  virtual int64_t num_tokens() const = 0;
  virtual absl::StatusOr<double> Value(absl::string_view name) const = 0;
  // Host memory, [num_rows, input.features]. DATA_LOSS "BLOB_CORRUPT" when it has other rows.
  virtual absl::StatusOr<Matrix> Table(absl::string_view name, const InputSpec& input,
                                       int64_t num_rows) const = 0;
  // Device memory, [features, features]; above the diagonal zeros.
  virtual absl::StatusOr<std::unique_ptr<DeviceMatrix>> Triangle(absl::string_view name,
                                                                 const InputSpec& input) const = 0;
};

}  // namespace lwq
