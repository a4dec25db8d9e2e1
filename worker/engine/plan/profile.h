// What a target inference engine accepts. docs/formats/compressed_tensors.md, docs/formats/gguf.md,
// docs/formats/gptq.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {

struct ProfileDef {
  absl::string_view name;
  absl::string_view help;
  const ArtifactFormatDef* artifact_format = nullptr;
  std::vector<int> grid_bits = {};  // of symmetric integer grids; dense is always allowed besides
  std::vector<int> asymmetric_bits = {};  // of grids with zero points
  std::vector<int64_t> group_sizes = {};  // of those; 0: the row
  // Formats besides grids, by id. The first of a row is a rung, those behind it stand in where a
  // linear does not accept it.
  std::vector<std::vector<std::string>> rungs = {};
  bool quantizes_head = false;  // an untied head takes part without being asked for
};

absl::Span<const ProfileDef> Profiles();
// INVALID_ARGUMENT "PROFILE_UNKNOWN".
absl::StatusOr<const ProfileDef*> FindProfile(absl::string_view name);

}  // namespace lwq
