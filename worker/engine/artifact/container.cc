#include "worker/engine/artifact/container.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/artifact/gptq.h"
#include "worker/engine/artifact/quantization_config.h"
#include "worker/engine/io/model_files.h"

namespace lwq {
namespace {

constexpr const ContainerDef* kContainers[] = {
#define LWQ_CONTAINER(file) &ContainerDefs::file,
#include "worker/engine/artifact/containers.def"
#undef LWQ_CONTAINER
};

bool IsSafetensors(absl::string_view name) { return absl::EndsWith(name, ".safetensors"); }

bool HasConfig(const std::string& directory) {
  return FileExists(JoinPath(directory, "config.json"));
}

bool SaysGptq(const std::string& directory) {
  if (!HasConfig(directory)) return false;
  const auto declared = ReadDeclaredQuantization(directory);
  return declared.ok() &&
         (declared->coding == &GptqCoding() || declared->coding == &GptqV2Coding());
}

// Whatever says nothing else.
bool IsCompressedOrDense(const std::string& directory) {
  return HasConfig(directory) && !SaysGptq(directory);
}

absl::StatusOr<std::unique_ptr<WeightSource>> OpenByConfig(const std::string& directory,
                                                           const std::string&) {
  return OpenWeights(directory);
}

}  // namespace

constinit const ContainerDef ContainerDefs::compressed_tensors = {
    .format = &ArtifactFormatDefs::compressed_tensors,
    .write = &WriteArtifact,
    .verify = &VerifyArtifact,
    .is_weight_file = &IsSafetensors,
    .is_in = &IsCompressedOrDense,
    .open = &OpenByConfig,
};

constinit const ContainerDef ContainerDefs::gptq = {
    .format = &ArtifactFormatDefs::gptq,
    .write = &WriteArtifact,
    .verify = &VerifyArtifact,
    .is_weight_file = &IsSafetensors,
    .is_in = &SaysGptq,
    .open = &OpenByConfig,
};

const ContainerDef& ContainerOf(const ArtifactFormatDef& format) {
  for (const ContainerDef* container : kContainers) {
    if (container->format == &format) return *container;
  }
  return ContainerDefs::compressed_tensors;
}

absl::StatusOr<ReadableArtifact> OpenArtifact(const std::string& directory,
                                              const std::string& source_directory) {
  const ContainerDef* found = &ContainerDefs::compressed_tensors;  // says best what is missing
  for (const ContainerDef* container : kContainers) {
    if (!container->is_in(directory)) continue;
    found = container;
    break;
  }
  ReadableArtifact artifact;
  // A GGUF file describes itself too, by its keys; beside its source the source is what counts.
  if (!GgufFileOf(directory).empty() && (source_directory.empty() || !found->is_in(directory))) {
    artifact.described_in = directory;
    LWQ_ASSIGN_OR_RETURN(artifact.weights, OpenWeights(directory));
    return artifact;
  }
  artifact.described_in = found->describes_itself ? directory : source_directory;
  if (artifact.described_in.empty()) {
    return Failure(reasons::kQuantMethodUnsupported,
                   absl::StrCat(directory, " holds a ", found->format->name,
                                " artifact without the model's config.json; lwq reads it "
                                "beside the model it was made from"));
  }
  LWQ_ASSIGN_OR_RETURN(artifact.weights, found->open(directory, source_directory));
  return artifact;
}

}  // namespace lwq
