#include "worker/engine/plan/profile.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"

namespace lwq {
namespace {

constexpr int kDenseBits = 16;

std::string GroupSizeName(int64_t group_size) {
  return group_size == 0 ? "channel (0)" : absl::StrCat(group_size);
}

bool Accepts(const ProfileDef& profile, int bits) {
  return bits == kDenseBits ||
         std::find(profile.bits.begin(), profile.bits.end(), bits) != profile.bits.end();
}

}  // namespace

absl::Span<const ProfileDef> Profiles() {
  static const auto& profiles = *new std::vector<ProfileDef>{
      {"portable", "what every engine runs: vLLM, SGLang, transformers", {4, 8}, {32, 64, 128, 0}},
      {"vllm-lowbit",
       "adds 2 and 3 bits: vLLM on NVIDIA, and transformers (expanded to 16 bits in memory)",
       {2, 3, 4, 8},
       {32, 64, 128, 0}},
  };
  return profiles;
}

absl::StatusOr<const ProfileDef*> FindProfile(absl::string_view name) {
  for (const ProfileDef& profile : Profiles()) {
    if (profile.name == name) return &profile;
  }
  return InvalidFailure(
      "PROFILE_UNKNOWN",
      absl::StrCat("there is no profile \"", name, "\"; the profiles are ",
                   absl::StrJoin(Profiles(), ", ", [](std::string* out, const ProfileDef& profile) {
                     absl::StrAppend(out, profile.name);
                   })));
}

absl::StatusOr<std::vector<UnitFormat>> FormatsFor(const ProfileDef& profile,
                                                   const std::vector<int>& bits, int64_t group_size,
                                                   bool symmetric) {
  const auto& groups = profile.group_sizes;
  if (std::find(groups.begin(), groups.end(), group_size) == groups.end()) {
    return InvalidFailure(
        "GROUP_SIZE",
        absl::StrCat("profile ", profile.name, " has no group size ", group_size, "; it accepts ",
                     absl::StrJoin(groups, ", ", [](std::string* out, int64_t group) {
                       absl::StrAppend(out, GroupSizeName(group));
                     })));
  }
  std::vector<int> widths = bits.empty() ? profile.bits : bits;
  std::sort(widths.begin(), widths.end());
  widths.erase(std::unique(widths.begin(), widths.end()), widths.end());
  std::vector<UnitFormat> formats;
  for (int width : widths) {
    if (!Accepts(profile, width)) {
      return InvalidFailure(
          "BITS_UNSUPPORTED",
          absl::StrCat("profile ", profile.name, " has no width of ", width, " bits; it accepts ",
                       absl::StrJoin(profile.bits, ", "), " and 16 (dense)"));
    }
    // One spelling of dense, so that a dense unit is the same plan whatever the job's group size.
    formats.push_back(width == kDenseBits ? UnitFormat{}
                                          : UnitFormat{width, group_size, symmetric});
  }
  return formats;
}

}  // namespace lwq
