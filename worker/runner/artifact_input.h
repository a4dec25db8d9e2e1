// The artifact of a job as a directory of links to its blobs, and the plan it was made from.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/artifact/artifact_config.h"
#include "worker/engine/artifact/artifact_writer.h"
#include "worker/engine/artifact/unit_blob.h"
#include "worker/engine/model/layer_edits.h"
#include "worker/runner/task_input.h"

namespace lwq {

// The unit blobs that a plan names, fetched and open, with the plan itself. Immovable: the parts
// point at each other.
struct PlannedArtifact {
  OpenedModel model;
  Plan plan;
  std::vector<std::unique_ptr<UnitBlob>> blobs;
  BlobSet blob_set;
  LayerEdits edits;  // of all layers that the method edited

  // Of the layers that the plan keeps.
  DecoderSpec spec() const {
    return WithLayers(model.spec, KeptLayers(model.inventory, plan));
  }
  const LayerEdits* edits_or_null() const { return edits.empty() ? nullptr : &edits; }
  ArtifactPlan Parts(int64_t max_shard_bytes) const {
    return {&model.inventory, &plan,           model.checkpoint.get(),
            &blob_set,        max_shard_bytes, edits_or_null()};
  }
};
absl::StatusOr<std::unique_ptr<PlannedArtifact>> OpenPlannedArtifact(const TaskContext& context,
                                                                     const v1::ModelInput& model,
                                                                     const v1::PlanSummary& plan);

// The blob of `unit` in `format` that the lease's quantize task left.
absl::StatusOr<std::unique_ptr<UnitBlob>> OpenUnitBlob(const TaskContext& context,
                                                       const AllocationUnit& unit,
                                                       const WeightFormat* format);

// The edits of a layer that the lease's quantize task left.
absl::StatusOr<LayerEdits> OpenEdits(const TaskContext& context, int layer);

// A directory with the files of the lease's assemble task.
absl::StatusOr<std::string> MaterializeArtifact(const TaskContext& context);

}  // namespace lwq
