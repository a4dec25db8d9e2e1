// Writes the artifact's files: packed linears from the unit blobs, the rest from the source.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/container.h"
#include "worker/runner/artifact_input.h"

namespace lwq {

absl::StatusOr<v1::TaskOutput> RunAssemble(const TaskContext& context,
                                           const v1::AssembleTask& task) {
  LWQ_ASSIGN_OR_RETURN(auto artifact, OpenPlannedArtifact(context, task.model(), task.plan()));
  const ContainerDef& container = ContainerOf(*artifact->model.inventory.artifact_format);
  const std::string directory = JoinPath(context.blobs->ScratchDirectory(), "artifact");
  LWQ_ASSIGN_OR_RETURN(std::vector<WrittenFile> files,
                       container.write(artifact->Parts(task.max_shard_bytes()), directory,
                                       [&](int64_t done, int64_t total) {
                                         return context.progress(total > 0 ? 0.5 * done / total : 0,
                                                                 "writing the weight files");
                                       }));
  v1::TaskOutput output;
  int64_t weight_bytes = 0;
  for (const WrittenFile& file : files) {
    LWQ_RETURN_IF_ERROR(context.progress(0.5, absl::StrCat("storing ", file.name)));
    LWQ_RETURN_IF_ERROR(
        AddBlob(context, file.name, JoinPath(directory, file.name), output, file.sha256));
    if (container.is_weight_file(file.name)) weight_bytes += file.size_bytes;
  }
  if (task.plan().weight_file_bytes() > 0 && task.plan().weight_file_bytes() != weight_bytes) {
    return Failure(reasons::kForecastMismatch,
                   absl::StrCat("the weight files have ", weight_bytes, " bytes, forecast were ",
                                task.plan().weight_file_bytes()));
  }
  output.mutable_assemble()->set_weight_file_bytes(weight_bytes);
  return output;
}

}  // namespace lwq
