// Evidence as the blobs and numbers of calibrate tasks.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/evidence/collector.h"
#include "worker/engine/evidence/evidence.h"
#include "worker/runner/task_runner.h"

namespace lwq {

// "second-moments.3.mlp", "second-moments.head": F32, by row.
std::string EvidenceBlobName(absl::string_view collector, Place place, const InputSpec& input);

// Stores what is collected of `place` in `output`, which must be a calibrate task's. Borrows both.
class BlobEvidenceSink : public EvidenceSink {
 public:
  BlobEvidenceSink(const TaskContext* context, Place place, v1::TaskOutput* output);

  absl::Status AddValue(absl::string_view name, double value) override;
  absl::Status AddTable(absl::string_view name, const InputSpec& input,
                        ConstMatrixView table) override;
  absl::Status AddTriangle(absl::string_view name, const InputSpec& input,
                           DeviceView<const float> triangle) override;

 private:
  const TaskContext& context_;
  const Place place_;
  v1::TaskOutput& output_;
};

// What the calibrate tasks that the lease builds on left of `place`. Borrows the context.
std::unique_ptr<LayerEvidence> OpenEvidence(const TaskContext* context, Place place);

}  // namespace lwq
