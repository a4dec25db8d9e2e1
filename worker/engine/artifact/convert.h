// The same quantized weights in another kind of artifact: re-encoded, not quantized again.
// docs/formats/gptq.md and docs/formats/gguf.md say what each holds.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/artifact/artifact_writer.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {

struct ConvertOptions {
  // Scales that the target cannot hold exactly are rounded to nearest instead of refused, unless one
  // would change by more than 2^-8.
  bool round_scales = false;
  int64_t max_shard_bytes = 0;  // 0: one file
};

struct ConvertedArtifact {
  const ArtifactFormatDef* from = nullptr;
  std::map<std::string, int64_t> linears;  // how many became what, by format: "int4-g128", "gguf-q4_0"
  int64_t rounded_scales = 0;
  double largest_rounding = 0;  // relative to the scale
  int64_t weight_bytes = 0;
  std::vector<WrittenFile> files;  // with lwq-manifest.json, which lists the others
};

// Reads the artifact in `source` (compressed-tensors or GPTQ) and writes one of kind `to` into
// `directory`, which is made and must be empty; then proves it: every tensor against what
// was read, and the weights of every linear of which no scale was rounded.
// Errors: INVALID_ARGUMENT "FORMAT_UNSUPPORTED" says of which linear `to` cannot hold what and what to do;
// INVALID_ARGUMENT "QUANT_METHOD_UNSUPPORTED" for a source that holds no such linears; those of
// OpenWeights and of the writer.
absl::StatusOr<ConvertedArtifact> ConvertArtifact(const std::string& source,
                                                  const ArtifactFormatDef& to,
                                                  const std::string& directory,
                                                  const ConvertOptions& options);

}  // namespace lwq
