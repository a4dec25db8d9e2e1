// The tensors of a GGUF file as those of the Hugging Face checkpoint that it was made from: names,
// shapes, the order of rows and the values of norms are the checkpoint's again. Blocks become
// numbers when rows are read. docs/formats/gguf.md.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/gguf/gguf_reader.h"
#include "worker/engine/tensor/row_coding.h"
#include "worker/engine/tensor/tensor_view.h"

namespace lwq {

// Immutable, thread-safe.
class GgufTensors {
 public:
  // Errors: those of GgufFile::Open and GgufFamilyOf; INVALID_ARGUMENT "TENSOR_UNKNOWN" for a
  // tensor that the family does not have; DATA_LOSS "GGUF_TENSOR" for one of a shape that cannot be
  // its own, "GGUF_METADATA" for numbers of heads that do not divide rows.
  static absl::StatusOr<std::unique_ptr<GgufTensors>> Open(const std::string& path);

  const GgufFile& file() const { return *file_; }
  // By the names of the checkpoint. The views live as long as this object.
  const std::vector<std::pair<std::string, TensorView>>& tensors() const { return tensors_; }
  // For people: "Q4_K, Q6_K, F32 in a GGUF file, read as F32".
  const std::string& description() const { return description_; }

 private:
  GgufTensors() = default;
  std::unique_ptr<GgufFile> file_;
  std::vector<std::unique_ptr<RowCoding>> codings_;
  std::vector<std::pair<std::string, TensorView>> tensors_;
  std::string description_;
};

}  // namespace lwq
