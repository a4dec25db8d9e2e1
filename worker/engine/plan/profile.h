// What a target inference engine accepts: widths and group sizes.
// docs/formats/compressed_tensors.md.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/plan/artifact_layout.h"

namespace lwq {

struct ProfileDef {
  absl::string_view name;
  absl::string_view help;
  std::vector<int> bits;             // 16 is always allowed besides
  std::vector<int64_t> group_sizes;  // 0 = channel
};

absl::Span<const ProfileDef> Profiles();
// INVALID_ARGUMENT "PROFILE_UNKNOWN".
absl::StatusOr<const ProfileDef*> FindProfile(absl::string_view name);

// The formats of a job: each of `bits` at `group_size`. INVALID_ARGUMENT "BITS_UNSUPPORTED" or
// "GROUP_SIZE" names what the profile accepts. Empty `bits`: all of the profile's.
absl::StatusOr<std::vector<UnitFormat>> FormatsFor(const ProfileDef& profile,
                                                   const std::vector<int>& bits, int64_t group_size,
                                                   bool symmetric);

}  // namespace lwq
