// Opens a written artifact again and holds it against the plan it was made from.
#pragma once

#include "absl/status/statusor.h"
#include "worker/engine/artifact/artifact_writer.h"

namespace lwq {

struct VerifyReport {
  int64_t num_quantized_linears = 0;  // codes, scales and zeros compared bit for bit
  int64_t num_dense_tensors = 0;      // compared byte for byte with the source
  int64_t weight_bytes = 0;           // size of the weight files, equal to the forecast
};

// DATA_LOSS "VERIFY_MISMATCH" names the first tensor, file or key that differs and how.
absl::StatusOr<VerifyReport> VerifyArtifact(const ArtifactPlan& plan, const std::string& directory);

}  // namespace lwq
