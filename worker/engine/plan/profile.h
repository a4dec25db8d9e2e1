// What a target inference engine accepts. docs/formats/compressed_tensors.md.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lwq {

struct ProfileDef {
  absl::string_view name;
  absl::string_view help;
  std::vector<int> grid_bits;        // of symmetric integer grids; dense is always allowed besides
  std::vector<int> asymmetric_bits;  // of grids with zero points
  std::vector<int64_t> group_sizes;  // of those; 0: the row
};

absl::Span<const ProfileDef> Profiles();
// INVALID_ARGUMENT "PROFILE_UNKNOWN".
absl::StatusOr<const ProfileDef*> FindProfile(absl::string_view name);

}  // namespace lwq
