// A model's weights: of a directory model.safetensors, or the shards that
// model.safetensors.index.json names; or a GGUF file (model_files.h), with the names and the order
// that a directory has. Everything is checked when it is opened (service-design rules: header, dtypes, overflow,
// overlap, holes, plain shard names, index and shards agreeing), so that reading a tensor cannot
// fail for a reason that lies in the files. Nothing in the directory is ever executed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/gguf/gguf_tensors.h"
#include "worker/engine/io/safetensors.h"
#include "worker/engine/tensor/matrix.h"
#include "worker/engine/tensor/tensor_view.h"

namespace lwq {

// Immutable and thread-safe after Open.
class Checkpoint {
 public:
  // Errors: NOT_FOUND (no weight file), DATA_LOSS with a reason such as ST_OVERLAP, ST_HEADER_JSON,
  // INDEX_SHARD_NAME; each names the file and the tensor. Of a GGUF file those of GgufTensors::Open.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory);

  // What was opened: the file, of a GGUF file by itself.
  const std::string& directory() const { return directory_; }
  // Null for any other than a GGUF file.
  const GgufTensors* gguf() const { return gguf_.get(); }
  // Sorted by name.
  const std::vector<std::string>& tensor_names() const { return names_; }
  bool Has(absl::string_view name) const { return tensors_.contains(name); }
  // NOT_FOUND "TENSOR_MISSING" naming tensor and directory. The view lives as long as this object.
  absl::StatusOr<TensorView> Get(absl::string_view name) const;
  // Plain names of the weight files, sorted, and their whole size in bytes.
  const std::vector<std::string>& file_names() const { return file_names_; }
  int64_t total_file_bytes() const { return total_file_bytes_; }

 private:
  Checkpoint() = default;
  static absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGguf(const std::string& model,
                                                              const std::string& path);
  std::string directory_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::unique_ptr<GgufTensors> gguf_;
  std::vector<std::string> file_names_;
  std::vector<std::string> names_;
  absl::flat_hash_map<std::string, TensorView> tensors_;
  int64_t total_file_bytes_ = 0;
};

}  // namespace lwq
