#include "worker/runner/artifact_input.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "records/blob_names.h"
#include "records/plan_records.h"
#include "worker/engine/artifact/edits_blob.h"

namespace lwq {

absl::StatusOr<std::unique_ptr<PlannedArtifact>> OpenPlannedArtifact(const TaskContext& context,
                                                                     const v1::ModelInput& model,
                                                                     const v1::PlanSummary& plan) {
  auto artifact = std::make_unique<PlannedArtifact>();
  LWQ_ASSIGN_OR_RETURN(artifact->model, OpenModel(model));
  LWQ_ASSIGN_OR_RETURN(artifact->model.inventory,
                       InventoryFor(plan, std::move(artifact->model.inventory)));
  LWQ_ASSIGN_OR_RETURN(artifact->plan, PlanOf(plan, artifact->model.inventory));
  for (size_t u = 0; u < artifact->plan.size(); ++u) {
    const WeightFormat* format = artifact->plan[u];
    if (format == nullptr || format->dense()) continue;
    LWQ_ASSIGN_OR_RETURN(auto blob,
                         OpenUnitBlob(context, artifact->model.inventory.units[u], format));
    artifact->blob_set.Add(blob.get());
    artifact->blobs.push_back(std::move(blob));
  }
  for (const int layer : plan.edited_layers()) {
    LWQ_ASSIGN_OR_RETURN(LayerEdits edits, OpenEdits(context, layer));
    artifact->edits.Add(std::move(edits));
  }
  return artifact;
}

absl::StatusOr<std::unique_ptr<UnitBlob>> OpenUnitBlob(const TaskContext& context,
                                                       const AllocationUnit& unit,
                                                       const WeightFormat* format) {
  LWQ_ASSIGN_OR_RETURN(const std::string path,
                       FetchInputBlob(context, "quantize", UnitBlobName(unit.name, format->id())));
  return UnitBlob::Open(path, unit, format);
}

absl::StatusOr<LayerEdits> OpenEdits(const TaskContext& context, int layer) {
  LWQ_ASSIGN_OR_RETURN(const std::string path,
                       FetchInputBlob(context, "quantize", EditsBlobName(layer)));
  return ReadEditsBlob(path);
}

absl::StatusOr<std::string> MaterializeArtifact(const TaskContext& context) {
  const std::string directory = JoinPath(context.blobs->ScratchDirectory(), "artifact");
  LWQ_RETURN_IF_ERROR(MakeDirectories(directory));
  int num_files = 0;
  for (const v1::TaskInput& input : context.lease->inputs()) {
    if (input.role() != "assemble") continue;
    for (const v1::NamedBlob& file : input.output().blobs()) {
      if (!IsPlainFileName(file.name())) {
        return absl::InternalError(absl::StrCat("artifact file name ", file.name()));
      }
      LWQ_ASSIGN_OR_RETURN(std::string path, context.blobs->Fetch(file.blob()));
      const std::string link = JoinPath(directory, file.name());
      if (::link(path.c_str(), link.c_str()) != 0 && errno != EEXIST) {
        return absl::ErrnoToStatus(errno, absl::StrCat("linking ", link));
      }
      ++num_files;
    }
  }
  if (num_files == 0) return absl::InternalError("leased without an assembled artifact");
  return directory;
}

}  // namespace lwq
