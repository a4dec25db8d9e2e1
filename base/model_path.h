// What a model may be on a disk, as far as one sees without reading it.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace lwq {

// A regular file whose name ends in .gguf or whose content begins as GGUF does: Hugging Face's cache
// has links to files that are named by their digests.
bool IsGgufFile(const std::string& path);
// A directory or such a file.
bool IsModelPath(const std::string& path);
// The path of a file of the model at `model`, by its plain name: in the directory, or beside, or of,
// the file.
std::string FileOfModel(const std::string& model, absl::string_view name);

}  // namespace lwq
