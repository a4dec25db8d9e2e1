// The result of quantizing one allocation unit in one format: a safetensors file with the parts of
// its linears, "<module>.<part>". It is what tasks hand on, what the cache keeps, and what an
// artifact of any kind is assembled from. The same linears always give the same bytes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "worker/engine/format/encoded_module.h"
#include "worker/engine/format/weight_format.h"
#include "worker/engine/io/safetensors.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

// Returns the file's SHA-256.
absl::StatusOr<std::string> WriteUnitBlob(const std::string& path,
                                          absl::Span<const EncodedModule> linears);

// The same blob of linears that come one by one and are not held: their parts wait in a file beside
// it, which goes with the object.
class UnitBlobSpool {
 public:
  // Writes `path` at the end.
  static absl::StatusOr<std::unique_ptr<UnitBlobSpool>> Create(const std::string& path);
  ~UnitBlobSpool();
  absl::Status Add(const EncodedModule& module);
  // Returns the file's SHA-256.
  absl::StatusOr<std::string> Finish();

 private:
  explicit UnitBlobSpool(const std::string& path) : path_(path), parts_path_(path + ".parts") {}
  struct Place {
    int64_t offset, size;
  };
  const std::string path_, parts_path_;
  std::unique_ptr<FileWriter> parts_;
  std::vector<TensorSpec> specs_;
  absl::flat_hash_map<std::string, Place> places_;
  int64_t written_ = 0;
};

// Immutable and thread-safe after Open.
class UnitBlob {
 public:
  // DATA_LOSS unless the file holds exactly the linears of `unit` in `format`.
  static absl::StatusOr<std::unique_ptr<UnitBlob>> Open(const std::string& path,
                                                        const AllocationUnit& unit,
                                                        const WeightFormat* format);

  const WeightFormat* format() const { return format_; }
  const absl::flat_hash_map<std::string, StoredLinear>& linears() const { return linears_; }
  // A linear; borrows this object. NOT_FOUND "TENSOR_MISSING".
  absl::StatusOr<StoredLinear> Find(absl::string_view module) const;

 private:
  UnitBlob() = default;
  std::string path_;
  const WeightFormat* format_ = nullptr;
  std::unique_ptr<SafetensorsFile> file_;
  absl::flat_hash_map<std::string, StoredLinear> linears_;
};

// Blobs of several units and formats, borrowed.
class BlobSet {
 public:
  void Add(const UnitBlob* blob);
  // `module` in `format`. NOT_FOUND "BLOB_MISSING" names both.
  absl::StatusOr<StoredLinear> Find(absl::string_view module, const WeightFormat* format) const;

 private:
  std::map<std::pair<std::string, const WeightFormat*>, const UnitBlob*> blobs_;
};

}  // namespace lwq
