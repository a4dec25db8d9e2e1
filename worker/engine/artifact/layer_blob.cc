#include "worker/engine/artifact/layer_blob.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/engine/plan/safetensors_layout.h"

namespace lwq {

absl::Status WriteLayerBlob(const std::string& path, const std::vector<PackedLinear>& linears) {
  std::vector<TensorSpec> specs;
  absl::flat_hash_map<std::string, const std::string*> bytes_of;
  for (const PackedLinear& linear : linears) {
    for (const PackedTensor& tensor : linear.tensors) {
      specs.push_back(tensor.spec);
      bytes_of.emplace(tensor.spec.name, &tensor.bytes);
    }
  }
  const SafetensorsLayout layout = LayOutSafetensors(std::move(specs));
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<FileWriter> writer, FileWriter::Create(path));
  LWQ_RETURN_IF_ERROR(writer->Append(absl::string_view(layout.header)));
  for (const TensorSpec& tensor : layout.tensors) {
    LWQ_RETURN_IF_ERROR(writer->Append(absl::string_view(*bytes_of.at(tensor.name))));
  }
  return writer->Close();
}

absl::StatusOr<std::unique_ptr<LayerBlob>> LayerBlob::Open(const std::string& path) {
  auto blob = std::unique_ptr<LayerBlob>(new LayerBlob());
  blob->path_ = path;
  LWQ_ASSIGN_OR_RETURN(blob->file_, SafetensorsFile::Open(path));
  for (const SafetensorsHeader::Entry& entry : blob->file_->header().entries) {
    blob->tensors_.emplace(entry.name, blob->file_->View(entry));
    absl::string_view module = entry.name;
    if (absl::ConsumeSuffix(&module, ".weight_packed")) blob->modules_.emplace_back(module);
  }
  std::sort(blob->modules_.begin(), blob->modules_.end());
  const auto lookup = [&](absl::string_view name) { return blob->Tensor(name); };
  for (const std::string& module : blob->modules_) {
    LWQ_ASSIGN_OR_ANNOTATE(StoredLinear linear, FindStoredLinear(module, lookup), path);
    blob->linears_.emplace(module, std::move(linear));
  }
  return blob;
}

absl::StatusOr<TensorView> LayerBlob::Tensor(absl::string_view name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  return Failure(absl::StatusCode::kNotFound, "TENSOR_MISSING",
                 absl::StrCat(path_, ": no tensor ", name));
}

absl::StatusOr<StoredLinear> LayerBlob::Find(absl::string_view module) const {
  const auto found = linears_.find(module);
  if (found != linears_.end()) return found->second;
  return Failure(absl::StatusCode::kNotFound, "TENSOR_MISSING",
                 absl::StrCat(path_, ": no quantized linear ", module));
}

bool LayerBlob::Holds(absl::string_view module, const UnitFormat& format) const {
  const auto found = linears_.find(module);
  if (found == linears_.end()) return false;
  const StoredLinear& linear = found->second;
  return linear.grid.bits == format.bits && linear.grid.symmetric == format.symmetric &&
         linear.grid.GroupSizeFor(linear.in_features) ==
             (format.group_size == 0 ? linear.in_features : format.group_size);
}

absl::StatusOr<const LayerBlob*> BlobSet::Find(absl::string_view module,
                                               const UnitFormat& format) const {
  for (const LayerBlob* blob : blobs_) {
    if (blob->Holds(module, format)) return blob;
  }
  return Failure(absl::StatusCode::kNotFound, "BLOB_MISSING",
                 absl::StrCat("none of ", blobs_.size(), " layer blobs holds ", module, " at ",
                              format.bits, " bits with group size ", format.group_size));
}

}  // namespace lwq
