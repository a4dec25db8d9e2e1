// The names of the blobs that tasks leave for each other, as task.proto describes them.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace lwq {

// What one allocation unit became in one weight format: "layers.3.mlp.down_proj.int4-g128".
std::string UnitBlobName(absl::string_view unit, absl::string_view format);
// What a method changed of a layer's dense tensors: "layers.3.edits".
std::string EditsBlobName(int layer);

}  // namespace lwq
