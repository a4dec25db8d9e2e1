#include "worker/engine/plan/profile.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"

namespace lwq {

absl::Span<const ProfileDef> Profiles() {
  static const auto& profiles = *new std::vector<ProfileDef>{
      {"portable",
       "what every engine runs: vLLM, SGLang, transformers",
       {4, 8},
       {},
       {32, 64, 128, 0}},
      {"vllm-lowbit",
       "adds 2 and 3 bits: vLLM on NVIDIA, and transformers (expanded to 16 bits in memory)",
       {2, 3, 4, 8},
       {4, 8},  // vLLM alone; docs/formats/compressed_tensors.md
       {32, 64, 128, 0}},
      {"transformers",
       "adds 5 and 6 bits: transformers (expanded to 16 bits in memory)",
       {2, 3, 4, 5, 6, 8},
       {},
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

}  // namespace lwq
