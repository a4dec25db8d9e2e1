#include "worker/engine/artifact/edits_blob.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/hashing_writer.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/io/safetensors.h"
#include "worker/engine/io/stored_rows.h"
#include "worker/engine/plan/safetensors_layout.h"
#include "worker/engine/tensor/half.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

constexpr absl::string_view kTensor = "tensor:", kRows = "rows:", kColumns = "columns:";

absl::Span<const uint8_t> BytesOf(const std::vector<float>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

absl::Status Corrupt(absl::string_view path, absl::string_view what) {
  return Failure(reasons::kBlobCorrupt, absl::StrCat(path, ": ", what));
}

// Appends values that `dtype` holds exactly.
void Append(DType dtype, ConstMatrixView values, std::string& bytes) {
  for (int64_t r = 0; r < values.rows; ++r) {
    for (int64_t c = 0; c < values.cols; ++c) {
      const float value = values.Row(r)[c];
      if (dtype == DType::kF32) {
        bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
        continue;
      }
      const uint16_t half = dtype == DType::kF16 ? FloatToF16(value) : FloatToBF16(value);
      bytes.append(reinterpret_cast<const char*>(&half), sizeof(half));
    }
  }
}

// A coded weight as what it is kept as: `view` gets its type and the bytes, which lie in `bytes`.
absl::Status ReadCoded(const Checkpoint& source, const std::string& name, TensorView& view,
                       std::string& bytes) {
  if (view.shape.size() != 2 && view.coding == nullptr) {
    return Failure(reasons::kDtypeUnsupported,
                   absl::StrCat("tensor ", name, " is F8_E4M3 and no matrix"));
  }
  const int64_t rows = view.shape.size() == 1 ? 1 : view.shape[0];
  const DType kept_as = KeptAs(source, view);
  bytes.reserve(static_cast<size_t>(view.num_elements() * SizeOf(kept_as)));
  Matrix some(std::min(kFp8Block, rows), view.shape.back());
  for (int64_t r = 0; r < rows; r += kFp8Block) {
    const MatrixView part = some.view().Rows(0, std::min(kFp8Block, rows - r));
    LWQ_RETURN_IF_ERROR(ReadCodedRows(source, name, r, part));
    LWQ_RETURN_IF_ERROR(RoundTo(kept_as, name, part));
    Append(kept_as, part, bytes);
  }
  view.dtype = kept_as;
  view.coding = nullptr;
  view.bytes = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  return absl::OkStatus();
}

// Rows of a matrix, or a vector as one row.
absl::Status CheckVector(const std::string& name, const TensorView& view, size_t size) {
  if (view.shape.size() == 1 && view.shape[0] == static_cast<int64_t>(size)) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      absl::StrCat("an edit of ", name, " has ", size, " values, which is not its shape"));
}

absl::Status ScaleInto(const std::string& name, const TensorView& view, const LinearScales& scales,
                       std::string& made) {
  const int64_t rows = view.shape[0], cols = view.shape[1];
  Matrix row(1, cols);
  for (int64_t r = 0; r < rows; ++r) {
    TensorView one = view;
    const size_t row_bytes = static_cast<size_t>(cols) * static_cast<size_t>(SizeOf(view.dtype));
    one.shape = {1, cols};
    one.bytes = view.bytes.subspan(static_cast<size_t>(r) * row_bytes, row_bytes);
    LWQ_RETURN_IF_ERROR(WidenToFloat(name, one, /*refuse_non_finite=*/true, row.view()));
    LWQ_RETURN_IF_ERROR(ScaleRows(scales, r, row.view()));
    LWQ_RETURN_IF_ERROR(RoundTo(view.dtype, name, row.view()));
    Append(view.dtype, row.view(), made);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> WriteEditsBlob(const std::string& path, const LayerEdits& edits) {
  std::vector<TensorSpec> specs;
  absl::flat_hash_map<std::string, const std::vector<float>*> values;
  const auto add = [&](absl::string_view kind, const std::string& name,
                       const std::vector<float>& list) {
    if (list.empty()) return;
    std::string key = absl::StrCat(kind, name);
    values.emplace(key, &list);
    specs.push_back({std::move(key), DType::kF32, {static_cast<int64_t>(list.size())}});
  };
  for (const auto& [name, tensor] : edits.tensors) add(kTensor, name, tensor);
  for (const auto& [module, scales] : edits.linears) {
    add(kRows, module, scales.rows);
    add(kColumns, module, scales.columns);
  }
  const SafetensorsLayout layout = LayOutSafetensors(std::move(specs));
  LWQ_ASSIGN_OR_RETURN(const auto writer, HashingWriter::Create(path));
  LWQ_RETURN_IF_ERROR(writer->Append(absl::string_view(layout.header)));
  for (const TensorSpec& tensor : layout.tensors) {
    LWQ_RETURN_IF_ERROR(writer->Append(BytesOf(*values.at(tensor.name))));
  }
  return writer->Close();
}

absl::StatusOr<LayerEdits> ReadEditsBlob(const std::string& path) {
  LWQ_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(path));
  LayerEdits edits;
  for (const SafetensorsHeader::Entry& entry : file->header().entries) {
    const TensorView view = file->View(entry);
    absl::string_view name = entry.name;
    std::vector<float>* values = nullptr;
    if (absl::ConsumePrefix(&name, kTensor)) {
      values = &edits.tensors[std::string(name)];
    } else if (absl::ConsumePrefix(&name, kRows)) {
      values = &edits.linears[std::string(name)].rows;
    } else if (absl::ConsumePrefix(&name, kColumns)) {
      values = &edits.linears[std::string(name)].columns;
    }
    if (values == nullptr || view.dtype != DType::kF32 || view.shape.size() != 1) {
      return Corrupt(path, absl::StrCat("\"", entry.name, "\" is no edit of a layer"));
    }
    values->resize(static_cast<size_t>(view.shape[0]));
    const MatrixView row{values->data(), 1, view.shape[0], view.shape[0]};
    LWQ_RETURN_IF_ERROR(WidenToFloat(entry.name, view, /*refuse_non_finite=*/true, row));
  }
  return edits;
}

absl::StatusOr<TensorView> EditedTensor(const Checkpoint& source, const LayerEdits* edits,
                                        const std::string& name, std::string& made) {
  LWQ_ASSIGN_OR_RETURN(TensorView view, source.Get(name));
  std::string read;
  if (IsCoded(view)) LWQ_RETURN_IF_ERROR(ReadCoded(source, name, view, read));
  const auto as_read = [&] {
    if (read.empty()) return view;
    made = std::move(read);
    view.bytes = {reinterpret_cast<const uint8_t*>(made.data()), made.size()};
    return view;
  };
  if (edits == nullptr) return as_read();
  absl::string_view module = name;
  const auto tensor = edits->tensors.find(name);
  const auto linear = absl::ConsumeSuffix(&module, ".weight")
                          ? edits->linears.find(std::string(module))
                          : edits->linears.end();
  if (tensor == edits->tensors.end() && linear == edits->linears.end()) {
    return as_read();
  }
  if (!IsWeightFloat(view.dtype)) {
    return absl::InternalError(
        absl::StrCat("an edit of ", name, ", which is ", NameOf(view.dtype)));
  }
  made.clear();
  if (tensor != edits->tensors.end()) {
    LWQ_RETURN_IF_ERROR(CheckVector(name, view, tensor->second.size()));
    Append(view.dtype, {tensor->second.data(), 1, view.shape[0], view.shape[0]}, made);
  } else {
    made.reserve(view.bytes.size());
    LWQ_RETURN_IF_ERROR(ScaleInto(name, view, linear->second, made));
  }
  view.bytes = {reinterpret_cast<const uint8_t*>(made.data()), made.size()};
  return view;
}

}  // namespace lwq
