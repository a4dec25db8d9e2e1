// The edits of one layer as a blob, and what they make of the source's dense tensors.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/layer_edits.h"

namespace lwq {

// A safetensors file of F32 vectors: "tensor:<name>" is what a dense tensor becomes,
// "rows:<module>" and "columns:<module>" are the scales of a linear. The same edits always give the
// same bytes. Returns the file's SHA-256.
absl::StatusOr<std::string> WriteEditsBlob(const std::string& path, const LayerEdits& edits);
// DATA_LOSS "BLOB_CORRUPT" for anything else.
absl::StatusOr<LayerEdits> ReadEditsBlob(const std::string& path);

// A dense tensor of `source` as the edits leave it, in its own dtype and shape; `edits` may be null.
// What it borrows lies in the source, or in `made`. INTERNAL where an edit is of another shape.
absl::StatusOr<TensorView> EditedTensor(const Checkpoint& source, const LayerEdits* edits,
                                        const std::string& name, std::string& made);

}  // namespace lwq
