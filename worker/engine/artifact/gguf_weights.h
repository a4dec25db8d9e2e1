// The weights of a GGUF file by the names and in the order of the model it was made from.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/model/weight_source.h"

namespace lwq {

// Reads model.gguf in `directory`; `source_directory` has the config.json that says how rows are
// ordered. Every tensor is dequantized as it is read. Errors: those of GgufFile::Open and
// MakeGgufModel.
absl::StatusOr<std::unique_ptr<WeightSource>> OpenGgufWeights(const std::string& directory,
                                                              const std::string& source_directory);

}  // namespace lwq
