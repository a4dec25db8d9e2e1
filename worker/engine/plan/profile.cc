#include "worker/engine/plan/profile.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"

namespace lwq {

absl::Span<const ProfileDef> Profiles() {
  static const ArtifactFormatDef* const compressed = &ArtifactFormatDefs::compressed_tensors;
  static const std::vector<int64_t> groups = {32, 64, 128, 0};
  static const auto& profiles = *new std::vector<ProfileDef>{
      {.name = "portable",
       .help = "what every engine runs: vLLM, SGLang, transformers",
       .artifact_format = compressed,
       .grid_bits = {4, 8},
       .group_sizes = groups},
      {.name = "vllm-lowbit",
       .help =
           "adds 2 and 3 bits: vLLM on NVIDIA, and transformers (expanded to 16 bits in memory)",
       .artifact_format = compressed,
       .grid_bits = {2, 3, 4, 8},
       .asymmetric_bits = {4, 8},  // vLLM alone; docs/formats/compressed_tensors.md
       .group_sizes = groups},
      {.name = "transformers",
       .help = "adds 5 and 6 bits: transformers (expanded to 16 bits in memory)",
       .artifact_format = compressed,
       .grid_bits = {2, 3, 4, 5, 6, 8},
       .group_sizes = groups},
      {.name = "w8a8",
       .help = "8-bit integers whose products are integers' too: vLLM, SGLang, transformers",
       .artifact_format = compressed,
       .rungs = {{"int8-row-a8"}}},
      {.name = "fp8",
       .help = "8-bit floats, inputs too: vLLM, SGLang, transformers",
       .artifact_format = compressed,
       .rungs = {{"fp8-row-a8"}}},
      {.name = "gptq",
       .help = "GPTQ's layout for every engine that reads it: vLLM, SGLang, GPTQModel",
       .artifact_format = &ArtifactFormatDefs::gptq,
       .grid_bits = {4, 8},
       .group_sizes = groups},
      {.name = "gptqmodel",
       .help = "adds 2 and 3 bits: GPTQModel",
       .artifact_format = &ArtifactFormatDefs::gptq,
       .grid_bits = {2, 3, 4, 8},
       .group_sizes = groups},
      {.name = "llama.cpp",
       .help = "llama.cpp and what is built on it: a GGUF file, embeddings and head included",
       .artifact_format = &ArtifactFormatDefs::gguf,
       // Below four bits the types with codebooks: at Q3_K's bytes and below Q2_K's their plans are
       // the better ones (docs/results/formats.md).
       .rungs = {{"gguf-iq2_xxs", "gguf-iq4_nl"},
                 {"gguf-iq2_s", "gguf-iq4_nl"},
                 {"gguf-iq3_s", "gguf-iq4_nl"},
                 {"gguf-iq4_xs", "gguf-iq4_nl"},
                 {"gguf-q4_k", "gguf-q4_1"},
                 {"gguf-q5_k", "gguf-q5_0"},
                 {"gguf-q6_k", "gguf-q5_1"},
                 {"gguf-q8_0"}},
       .quantizes_head = true},
  };
  return profiles;
}

absl::StatusOr<const ProfileDef*> FindProfile(absl::string_view name) {
  for (const ProfileDef& profile : Profiles()) {
    if (profile.name == name) return &profile;
  }
  return Failure(
      reasons::kProfileUnknown,
      absl::StrCat("there is no profile \"", name, "\"; the profiles are ",
                   absl::StrJoin(Profiles(), ", ", [](std::string* out, const ProfileDef& profile) {
                     absl::StrAppend(out, profile.name);
                   })));
}

}  // namespace lwq
