// The kinds of artifacts, as the planner sees them: what each lets be planned on its own, and how
// many bytes its weight files take, exactly. How an artifact is written and read again is
// artifact/container.h's matter, entry by entry under the same name.
//
// Adding one: plan/<file>.cc that defines ArtifactFormatDefs::<file>, and a line in
// artifact_formats.def.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/plan/artifact_layout.h"

namespace lwq {

struct ArtifactFormatDef {
  absl::string_view name;
  absl::string_view help;  // one line
  // The same model with the units that this kind of artifact lets be planned.
  ModelInventory (*units_of)(ModelInventory model);
  // Why a model cannot be stored so: the errors of what would write it.
  absl::Status (*check)(const ModelInventory& model);
  // The tensors of a linear in a format that is not dense; `dtype` is that of its weight in the
  // source.
  std::vector<TensorSpec> (*linear_tensors)(const LinearShape& linear, const WeightFormat& format,
                                            DType dtype);
  // All weight files of `plan`, to the byte. `max_shard_bytes` 0: one file.
  int64_t (*weight_file_bytes)(const ModelInventory& model, const Plan& plan,
                               int64_t max_shard_bytes);
  // Whether layers may be absent from a plan.
  bool may_drop_layers = false;
};

// Names of the definitions listed in artifact_formats.def.
struct ArtifactFormatDefs {
#define LWQ_ARTIFACT_FORMAT(file) static const ArtifactFormatDef file;
#include "worker/engine/plan/artifact_formats.def"
#undef LWQ_ARTIFACT_FORMAT
};
// Sorted by name.
absl::Span<const ArtifactFormatDef* const> ArtifactFormats();
// "" is compressed-tensors, which plans were of before they said so. INVALID_ARGUMENT
// "ARTIFACT_FORMAT_UNKNOWN" lists the names.
absl::StatusOr<const ArtifactFormatDef*> FindArtifactFormat(absl::string_view name);

// `model` for artifacts of `format`: its units, and model.artifact_format.
ModelInventory PlannedAs(const ArtifactFormatDef& format, ModelInventory model);
// The weight files of an artifact of model.artifact_format.
int64_t WeightFileBytes(const ModelInventory& model, const Plan& plan, int64_t max_shard_bytes);

// The unit of that name in the model as some kind of artifact has it planned; the same name is the
// same linears in all. INVALID_ARGUMENT "PLAN_MISMATCH" when there is none.
absl::StatusOr<AllocationUnit> FindUnit(const ModelInventory& model, absl::string_view name);

}  // namespace lwq
