#include "worker/engine/plan/artifact_format.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"

namespace lwq {
namespace {

constexpr const ArtifactFormatDef* kFormats[] = {
#define LWQ_ARTIFACT_FORMAT(file) &ArtifactFormatDefs::file,
#include "worker/engine/plan/artifact_formats.def"
#undef LWQ_ARTIFACT_FORMAT
};

}  // namespace

const ArtifactFormatDef* DefaultArtifactFormat() { return &ArtifactFormatDefs::compressed_tensors; }

absl::Span<const ArtifactFormatDef* const> ArtifactFormats() { return kFormats; }

absl::StatusOr<const ArtifactFormatDef*> FindArtifactFormat(absl::string_view name) {
  if (name.empty()) return DefaultArtifactFormat();
  for (const ArtifactFormatDef* format : kFormats) {
    if (format->name == name) return format;
  }
  return Failure(
      reasons::kArtifactFormatUnknown,
      absl::StrCat("there is no artifact format \"", name.substr(0, 80), "\"; there are ",
                   absl::StrJoin(kFormats, ", ", [](std::string* out, const auto* format) {
                     absl::StrAppend(out, format->name);
                   })));
}

ModelInventory PlannedAs(const ArtifactFormatDef& format, ModelInventory model) {
  model = format.units_of(std::move(model));
  model.artifact_format = &format;
  return model;
}

int64_t WeightFileBytes(const ModelInventory& model, const Plan& plan, int64_t max_shard_bytes) {
  return model.artifact_format->weight_file_bytes(model, plan, max_shard_bytes);
}

absl::StatusOr<AllocationUnit> FindUnit(const ModelInventory& model, absl::string_view name) {
  for (const ArtifactFormatDef* format : kFormats) {
    for (AllocationUnit& unit : format->units_of(model).units) {
      if (unit.name == name) return std::move(unit);
    }
  }
  return InvalidFailure(reasons::kPlanMismatch.name, absl::StrCat("the model has no unit ", name));
}

}  // namespace lwq
