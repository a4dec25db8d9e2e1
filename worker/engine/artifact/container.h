// The kinds of artifacts, as they are written, proven and read again; the planner's side of each is
// the entry of the same name in plan/artifact_format.h.
//
// Adding one: artifact/<file>.cc that defines ContainerDefs::<file>, and a line in containers.def.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/artifact/artifact_writer.h"
#include "worker/engine/artifact/verify.h"
#include "worker/engine/model/weight_source.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {

struct ContainerDef {
  const ArtifactFormatDef* format = nullptr;
  // All files of the artifact into `directory`, which is made and must be empty. Sorted by name.
  absl::StatusOr<std::vector<WrittenFile>> (*write)(const ArtifactPlan& plan,
                                                    const std::string& directory,
                                                    const WriteProgress& progress);
  // Opens it again and holds it against the plan. DATA_LOSS "VERIFY_MISMATCH" names the first
  // tensor, file or key that differs and how.
  absl::StatusOr<VerifyReport> (*verify)(const ArtifactPlan& plan, const std::string& directory);
  // Whether a file of an artifact counts as weights.
  bool (*is_weight_file)(absl::string_view name);
  // Whether `directory` holds such an artifact, by the names in it.
  bool (*is_in)(const std::string& directory);
  // Its weights, by the names of the model it was made from. What it returns owns its files.
  absl::StatusOr<std::unique_ptr<WeightSource>> (*open)(const std::string& directory,
                                                        const std::string& source_directory);
  // Whether config.json and tokenizer are beside the weights, in the files of Hugging Face.
  bool describes_itself = true;
};

// Names of the definitions listed in containers.def.
struct ContainerDefs {
#define LWQ_CONTAINER(file) static const ContainerDef file;
#include "worker/engine/artifact/containers.def"
#undef LWQ_CONTAINER
};
const ContainerDef& ContainerOf(const ArtifactFormatDef& format);

// An artifact, or a dense model, that is open for reading.
struct ReadableArtifact {
  std::unique_ptr<WeightSource> weights;
  // Where config.json and tokenizer are: the directory itself, or that of the source.
  std::string described_in;
};
// Opens what `directory` holds. `source_directory` is the model it was made from, or empty where
// that is not known: then a GGUF file is read by its own keys, and another artifact that does not
// describe itself is INVALID_ARGUMENT "QUANT_METHOD_UNSUPPORTED".
absl::StatusOr<ReadableArtifact> OpenArtifact(const std::string& directory,
                                              const std::string& source_directory);

}  // namespace lwq
