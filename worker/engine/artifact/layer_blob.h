// The result of quantizing one layer at one width: a safetensors file with the packed tensors of
// its linears, named as in the artifact. It is what tasks hand on, what the cache keeps, and what
// the artifact is assembled from. The same linears always give the same bytes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/artifact/compressed_tensors.h"
#include "worker/engine/io/safetensors.h"

namespace lwq {

absl::Status WriteLayerBlob(const std::string& path, const std::vector<PackedLinear>& linears);

// Immutable and thread-safe after Open.
class LayerBlob {
 public:
  // DATA_LOSS when the file, or any linear in it, is not sound.
  static absl::StatusOr<std::unique_ptr<LayerBlob>> Open(const std::string& path);

  // Sorted.
  const std::vector<std::string>& modules() const { return modules_; }
  bool Has(absl::string_view module) const { return linears_.contains(module); }
  // A linear's tensors, checked; borrows this object. NOT_FOUND "TENSOR_MISSING".
  absl::StatusOr<StoredLinear> Find(absl::string_view module) const;
  // A tensor by its full name. NOT_FOUND "TENSOR_MISSING".
  absl::StatusOr<TensorView> Tensor(absl::string_view name) const;
  // Whether the blob holds `module` in `format` (one group a row counts as the strategy channel).
  bool Holds(absl::string_view module, const UnitFormat& format) const;

 private:
  LayerBlob() = default;
  std::string path_;
  std::unique_ptr<SafetensorsFile> file_;
  std::vector<std::string> modules_;
  absl::flat_hash_map<std::string, TensorView> tensors_;
  absl::flat_hash_map<std::string, StoredLinear> linears_;
};

// Blobs of several layers and widths, borrowed.
class BlobSet {
 public:
  void Add(const LayerBlob* blob) { blobs_.push_back(blob); }
  // The first blob that holds `module` in `format`. NOT_FOUND "BLOB_MISSING" names both.
  absl::StatusOr<const LayerBlob*> Find(absl::string_view module, const UnitFormat& format) const;

 private:
  std::vector<const LayerBlob*> blobs_;
};

}  // namespace lwq
