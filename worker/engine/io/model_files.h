// The files that describe a model: those in its directory; or, of a model that is a GGUF file, the
// ones that its keys make. Whoever reads config.json or a tokenizer reads it through here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/io/json_file.h"

namespace lwq {

// The path of the GGUF file that `model` is: a file of that name, or the only one in a directory
// without safetensors weights. "" for any other model; a directory with several is none, which
// Checkpoint::Open then says.
std::string GgufFileOf(const std::string& model);

// Files of the model that are made and lie nowhere, sorted, config.json among them; none for a
// directory of safetensors.
std::vector<std::string> MadeFiles(const std::string& model);

bool HasModelFile(const std::string& model, absl::string_view name);
// Its content. NOT_FOUND when the model has none of that name; INVALID_ARGUMENT for more than
// `max_bytes`; of a GGUF file also those of GgufConfigJson and GgufTokenizerJson.
absl::StatusOr<std::string> ReadModelFile(const std::string& model, const std::string& name,
                                          int64_t max_bytes);
// The same, checked as JSON.
absl::StatusOr<std::string> ReadModelJson(const std::string& model, const std::string& name,
                                          const JsonLimits& limits);

}  // namespace lwq
