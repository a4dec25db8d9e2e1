#include "worker/engine/artifact/unit_blob.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hashing_writer.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/plan/safetensors_layout.h"

namespace lwq {
namespace {

std::string TensorName(absl::string_view module, absl::string_view part) {
  return absl::StrCat(module, ".", part);
}

// The parts of one linear among the tensors of a file, checked.
absl::StatusOr<StoredLinear> Collect(const std::string& path, const LinearShape& linear,
                                     const WeightFormat* format,
                                     const absl::flat_hash_map<std::string, TensorView>& tensors) {
  StoredLinear stored{format, linear.out_features, linear.in_features, {}};
  LWQ_RETURN_IF_ERROR(format->Accepts(linear.out_features, linear.in_features));
  for (const PartSpec& part : format->Parts(linear.out_features, linear.in_features, DType::kF16)) {
    const auto found = tensors.find(TensorName(linear.module, part.name));
    if (found == tensors.end()) {
      return CorruptFailure(reasons::kTensorMissing.name,
                            absl::StrCat(path, ": no ", part.name, " of ", linear.module,
                                         " in format ", format->id()));
    }
    stored.parts.push_back(found->second);
  }
  LWQ_RETURN_IF_ERROR(CheckParts(linear.module, stored));
  return stored;
}

}  // namespace

absl::StatusOr<std::string> WriteUnitBlob(const std::string& path,
                                          absl::Span<const EncodedModule> linears) {
  std::vector<TensorSpec> specs;
  absl::flat_hash_map<std::string, const std::string*> bytes_of;
  for (const EncodedModule& encoded : linears) {
    for (const EncodedPart& part : encoded.linear) {
      std::string name = TensorName(encoded.module, part.spec.name);
      bytes_of.emplace(name, &part.bytes);
      specs.push_back({std::move(name), part.spec.dtype, part.spec.shape});
    }
  }
  const SafetensorsLayout layout = LayOutSafetensors(std::move(specs));
  LWQ_ASSIGN_OR_RETURN(const auto writer, HashingWriter::Create(path));
  LWQ_RETURN_IF_ERROR(writer->Append(absl::string_view(layout.header)));
  for (const TensorSpec& tensor : layout.tensors) {
    LWQ_RETURN_IF_ERROR(writer->Append(absl::string_view(*bytes_of.at(tensor.name))));
  }
  return writer->Close();
}

absl::StatusOr<std::unique_ptr<UnitBlobSpool>> UnitBlobSpool::Create(const std::string& path) {
  auto spool = std::unique_ptr<UnitBlobSpool>(new UnitBlobSpool(path));
  LWQ_ASSIGN_OR_RETURN(spool->parts_, FileWriter::Create(spool->parts_path_));
  return spool;
}

UnitBlobSpool::~UnitBlobSpool() { (void)RemoveAll(parts_path_); }

absl::Status UnitBlobSpool::Add(const EncodedModule& module) {
  for (const EncodedPart& part : module.linear) {
    std::string name = TensorName(module.module, part.spec.name);
    const int64_t size = static_cast<int64_t>(part.bytes.size());
    LWQ_RETURN_IF_ERROR(parts_->Append(absl::string_view(part.bytes)));
    places_.emplace(name, Place{written_, size});
    specs_.push_back({std::move(name), part.spec.dtype, part.spec.shape});
    written_ += size;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> UnitBlobSpool::Finish() {
  LWQ_RETURN_IF_ERROR(parts_->Close());
  LWQ_ASSIGN_OR_RETURN(const auto parts, MappedFile::Open(parts_path_));
  const SafetensorsLayout layout = LayOutSafetensors(std::move(specs_));
  LWQ_ASSIGN_OR_RETURN(const auto writer, HashingWriter::Create(path_));
  LWQ_RETURN_IF_ERROR(writer->Append(absl::string_view(layout.header)));
  for (const TensorSpec& tensor : layout.tensors) {
    const Place& place = places_.at(tensor.name);
    LWQ_RETURN_IF_ERROR(writer->Append(parts->bytes().subspan(
        static_cast<size_t>(place.offset), static_cast<size_t>(place.size))));
  }
  return writer->Close();
}

absl::StatusOr<std::unique_ptr<UnitBlob>> UnitBlob::Open(const std::string& path,
                                                         const AllocationUnit& unit,
                                                         const WeightFormat* format) {
  auto blob = std::unique_ptr<UnitBlob>(new UnitBlob());
  blob->path_ = path;
  blob->format_ = format;
  LWQ_ASSIGN_OR_RETURN(blob->file_, SafetensorsFile::Open(path));
  absl::flat_hash_map<std::string, TensorView> tensors;
  for (const SafetensorsHeader::Entry& entry : blob->file_->header().entries) {
    tensors.emplace(entry.name, blob->file_->View(entry));
  }
  size_t num_parts = 0;
  for (const LinearShape& linear : unit.linears) {
    LWQ_ASSIGN_OR_RETURN(StoredLinear stored, Collect(path, linear, format, tensors));
    num_parts += stored.parts.size();
    blob->linears_.emplace(linear.module, std::move(stored));
  }
  if (num_parts != tensors.size()) {
    return Failure(reasons::kPackedShape,
                   absl::StrCat(path, " holds ", tensors.size(), " tensors, unit ", unit.name,
                                " has ", num_parts));
  }
  return blob;
}

absl::StatusOr<StoredLinear> UnitBlob::Find(absl::string_view module) const {
  const auto found = linears_.find(module);
  if (found != linears_.end()) return found->second;
  return Failure(reasons::kTensorMissing, absl::StrCat(path_, ": no quantized linear ", module));
}

void BlobSet::Add(const UnitBlob* blob) {
  for (const auto& [module, linear] : blob->linears()) {
    blobs_.emplace(std::make_pair(module, blob->format()), blob);
  }
}

absl::StatusOr<StoredLinear> BlobSet::Find(absl::string_view module,
                                           const WeightFormat* format) const {
  const auto found = blobs_.find({std::string(module), format});
  if (found != blobs_.end()) return found->second->Find(module);
  return Failure(reasons::kBlobMissing, absl::StrCat("none of the blobs of this task holds ",
                                                     module, " in format ", format->id()));
}

}  // namespace lwq
