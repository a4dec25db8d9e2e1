#include "worker/engine/artifact/verify.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/artifact_config.h"
#include "worker/engine/artifact/edits_blob.h"
#include "worker/engine/artifact/linear_coding.h"
#include "worker/engine/artifact/quantization_config.h"
#include "worker/engine/io/json_file.h"
#include "worker/engine/tensor/matrix.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

absl::Status Mismatch(absl::string_view directory, absl::string_view what) {
  return Failure(reasons::kVerifyMismatch, absl::StrCat("verifying ", directory, ": ", what));
}

// Files, sizes and the exact set of tensors.
absl::Status VerifyFiles(const CheckpointLayout& layout, const Checkpoint& artifact,
                         const std::string& directory) {
  std::vector<std::string> planned_files;
  std::vector<std::string> planned_tensors;
  for (const CheckpointLayout::File& file : layout.files) {
    planned_files.push_back(file.name);
    LWQ_ASSIGN_OR_RETURN(const int64_t size, FileSize(JoinPath(directory, file.name)));
    if (size != file.layout.file_bytes) {
      return Mismatch(directory, absl::StrCat(file.name, " has ", size, " bytes, planned were ",
                                              file.layout.file_bytes));
    }
    for (const TensorSpec& tensor : file.layout.tensors) planned_tensors.push_back(tensor.name);
  }
  std::sort(planned_tensors.begin(), planned_tensors.end());
  if (artifact.file_names() != planned_files) {
    return Mismatch(directory, absl::StrCat("it has ", artifact.file_names().size(),
                                            " weight files, planned were ", planned_files.size()));
  }
  if (artifact.tensor_names() != planned_tensors) {
    return Mismatch(directory, "it does not hold exactly the planned tensors");
  }
  return absl::OkStatus();
}

// Bit for bit; scales of two float types value for value.
absl::StatusOr<bool> SamePart(const std::string& module, const TensorView& a, const TensorView& b) {
  if (a.shape != b.shape) return false;
  if (a.dtype == b.dtype) return a.bytes == b.bytes;
  if (!IsWeightFloat(a.dtype) || !IsWeightFloat(b.dtype)) return false;
  Matrix x(a.shape[0], a.shape[1]), y(b.shape[0], b.shape[1]);
  LWQ_RETURN_IF_ERROR(WidenToFloat(module, a, /*refuse_non_finite=*/true, x.view()));
  LWQ_RETURN_IF_ERROR(WidenToFloat(module, b, /*refuse_non_finite=*/true, y.view()));
  return std::equal(x.data(), x.data() + x.size(), y.data());
}

absl::Status VerifyLinear(const std::string& module, const WeightFormat* format,
                          const ArtifactPlan& plan, const KeptModel& kept,
                          const Checkpoint& artifact) {
  const std::string& directory = artifact.directory();
  LWQ_ASSIGN_OR_RETURN(const StoredLinear planned, plan.blobs->Find(kept.InSource(module), format));
  const LinearCoding& coding = CodingOf(*plan.model->artifact_format);
  const auto lookup = [&](absl::string_view name) { return artifact.Get(name); };
  const absl::StatusOr<FoundLinear> found = coding.Find(module, lookup, {format});
  if (absl::IsUnimplemented(found.status())) return Mismatch(directory, found.status().message());
  LWQ_RETURN_IF_ERROR(found.status());
  LWQ_ASSIGN_OR_RETURN(const OwnedLinear owned, coding.Read(module, *found));
  const StoredLinear& written = owned.linear;
  if (written.parts.size() != planned.parts.size()) {
    return Mismatch(directory, absl::StrCat(module, " is stored ", written.format->label(),
                                            ", planned was ", format->label()));
  }
  const std::vector<PartSpec> specs =
      format->Parts(planned.out_features, planned.in_features, plan.model->weight_dtype);
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorView& a = planned.parts[i];
    const TensorView& b = written.parts[i];
    LWQ_ASSIGN_OR_RETURN(const bool same, SamePart(module, a, b));
    if (!same) {
      return Mismatch(directory, absl::StrCat(module, ": ", specs[i].name, " differ"));
    }
  }
  return absl::OkStatus();
}

absl::Status VerifyDense(const std::string& name, const ArtifactPlan& plan, const KeptModel& kept,
                         const Checkpoint& artifact) {
  std::string made;
  LWQ_ASSIGN_OR_RETURN(const TensorView source, EditedTensor(*plan.source, plan.edits,
                                                              kept.InSource(name), made));
  LWQ_ASSIGN_OR_RETURN(const TensorView written, artifact.Get(name));
  if (source.dtype != written.dtype || source.shape != written.shape ||
      source.bytes != written.bytes) {
    return Mismatch(artifact.directory(),
                    absl::StrCat("tensor ", name, " differs from the source's",
                                 made.empty() ? "" : " as it is read and the method edited it"));
  }
  return absl::OkStatus();
}

absl::Status VerifyConfig(const ArtifactPlan& plan, const KeptModel& kept,
                          const std::string& directory) {
  LWQ_ASSIGN_OR_RETURN(const std::string planned, PlannedConfig(plan, kept));
  LWQ_ASSIGN_OR_RETURN(
      const std::string written,
      ReadJsonFile(JoinPath(directory, "config.json"), {.reason = reasons::kConfigInvalid.name}));
  if (planned != written) return Mismatch(directory, "config.json is not the planned one");
  const SideConfig side = SideConfigOf(kept.model, kept.plan);
  if (side.name.empty()) return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(
      const std::string beside,
      ReadJsonFile(JoinPath(directory, side.name), {.reason = reasons::kConfigInvalid.name}));
  if (side.content == beside) return absl::OkStatus();
  return Mismatch(directory, absl::StrCat(side.name, " is not the planned one"));
}

}  // namespace

absl::StatusOr<VerifyReport> VerifyArtifact(const ArtifactPlan& plan,
                                            const std::string& directory) {
  const KeptModel kept = KeepLayers(*plan.model, *plan.plan);
  LWQ_RETURN_IF_ERROR(VerifyConfig(plan, kept, directory));
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> artifact, Checkpoint::Open(directory));
  const CheckpointLayout layout = LayOutArtifact(kept.model, kept.plan, plan.max_shard_bytes);
  LWQ_RETURN_IF_ERROR(VerifyFiles(layout, *artifact, directory));
  VerifyReport report;
  report.weight_bytes = layout.weight_bytes;
  for (size_t i = 0; i < kept.model.units.size(); ++i) {
    const WeightFormat* format = kept.plan[i];
    for (const LinearShape& linear : kept.model.units[i].linears) {
      if (format->dense()) {
        LWQ_RETURN_IF_ERROR(VerifyDense(linear.module + ".weight", plan, kept, *artifact));
        ++report.num_dense_tensors;
      } else {
        LWQ_RETURN_IF_ERROR(VerifyLinear(linear.module, format, plan, kept, *artifact));
        ++report.num_quantized_linears;
      }
    }
  }
  for (const TensorSpec& tensor : kept.model.dense) {
    LWQ_RETURN_IF_ERROR(VerifyDense(tensor.name, plan, kept, *artifact));
    ++report.num_dense_tensors;
  }
  return report;
}

}  // namespace lwq
