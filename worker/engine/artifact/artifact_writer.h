// Writes an artifact directory: weight files by the planner's layout, config.json, and the source's
// tokenizer files. Streams: holds one tensor at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/artifact/unit_blob.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/layer_edits.h"
#include "worker/engine/plan/artifact_layout.h"

namespace lwq {

// Supplies the bytes of planned tensors. The span lives until the next call.
class TensorProvider {
 public:
  virtual ~TensorProvider() = default;
  virtual absl::StatusOr<absl::Span<const uint8_t>> Read(const TensorSpec& tensor) = 0;
};

// What an artifact is made of. Borrows everything.
struct ArtifactPlan {
  const ModelInventory* model = nullptr;
  const Plan* plan = nullptr;
  const Checkpoint* source = nullptr;
  const BlobSet* blobs = nullptr;
  int64_t max_shard_bytes = 0;  // 0: one file
  const LayerEdits* edits = nullptr;  // of the layers that the method edited; null: of none
};

// Quantized linears come from the plan's blobs, all else byte for byte from the source, edited where
// the method did. A tensor
// whose dtype or shape is not the planned one is INTERNAL "PLAN_MISMATCH".
std::unique_ptr<TensorProvider> MakePlanProvider(const ArtifactPlan& plan);

struct WrittenFile {
  std::string name;
  int64_t size_bytes = 0;
  std::string sha256;
};

// Bytes written so far of the weight files; a non-OK answer stops the writing.
using WriteProgress = std::function<absl::Status(int64_t bytes_done, int64_t bytes_total)>;

// Writes the weight files of `layout` (and the index, when there are several) into an existing
// directory, each flushed to disk. INTERNAL "FORECAST_MISMATCH" if a file's size is not the
// forecast's.
absl::StatusOr<std::vector<WrittenFile>> WriteWeightFiles(const CheckpointLayout& layout,
                                                          const std::string& directory,
                                                          TensorProvider* provider,
                                                          const WriteProgress& progress = nullptr);

// Copies the companion files (companion_files.h) of a model directory. One over 64 MiB is refused.
absl::StatusOr<std::vector<WrittenFile>> CopyCompanionFiles(const std::string& source_directory,
                                                            const std::string& directory);

// All of it: weights, index, config.json, companions. `directory` is made and must be empty; the
// caller renames it into place. Sorted by name.
absl::StatusOr<std::vector<WrittenFile>> WriteArtifact(const ArtifactPlan& plan,
                                                       const std::string& directory,
                                                       const WriteProgress& progress = nullptr);

}  // namespace lwq
