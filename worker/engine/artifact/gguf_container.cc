// GGUF as an artifact: one file, and nothing beside it.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/container.h"
#include "worker/engine/artifact/edits_blob.h"
#include "worker/engine/artifact/gguf_file_plan.h"
#include "worker/engine/artifact/gguf_weights.h"
#include "worker/engine/gguf/gguf_reader.h"
#include "worker/engine/gguf/gguf_writer.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

using Piece = absl::Span<const uint8_t>;
using TakePiece = absl::FunctionRef<absl::Status(Piece)>;

Piece BytesOf(const std::vector<float>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

// Hands on the rows of a matrix, in one piece unless heads are reordered.
absl::Status GiveRows(Piece bytes, int64_t rows, int64_t heads, TakePiece take) {
  if (heads == 0) return take(bytes);
  const size_t row_bytes = bytes.size() / static_cast<size_t>(rows);
  for (int64_t r = 0; r < rows; ++r) {
    const size_t from = static_cast<size_t>(PermutedRow(r, rows, heads)) * row_bytes;
    LWQ_RETURN_IF_ERROR(take(bytes.subspan(from, row_bytes)));
  }
  return absl::OkStatus();
}

// One linear of a unit: the blob's blocks, or the source's own bytes, edited where the method did: then
// they lie in `made`.
absl::StatusOr<Piece> BytesOfLinear(const ArtifactPlan& plan, const std::string& module,
                                    const WeightFormat& format, std::string& made) {
  if (format.dense()) {
    LWQ_ASSIGN_OR_RETURN(
        const TensorView source,
        EditedTensor(*plan.source, plan.edits, absl::StrCat(module, ".weight"), made));
    return source.bytes;
  }
  LWQ_ASSIGN_OR_RETURN(const StoredLinear stored, plan.blobs->Find(module, &format));
  return stored.parts[0].bytes;
}

// A unit's linear, or the experts' one after the other.
absl::Status GiveUnit(const ArtifactPlan& plan, const GgufTensorPlan& tensor,
                      const GgufTensorSpec& spec, TakePiece take) {
  const int64_t num_linears = static_cast<int64_t>(tensor.modules.size());
  std::string made;
  for (const std::string& module : tensor.modules) {
    LWQ_ASSIGN_OR_RETURN(const Piece bytes, BytesOfLinear(plan, module, *tensor.format, made));
    if (static_cast<int64_t>(bytes.size()) * num_linears != spec.size_bytes()) {
      return Failure(reasons::kPlanMismatch,
                     absl::StrCat(module, " has ", bytes.size(), " bytes, planned were ",
                                  spec.size_bytes() / num_linears));
    }
    LWQ_RETURN_IF_ERROR(GiveRows(bytes, spec.shape[spec.shape.size() - 2], tensor.heads, take));
  }
  return absl::OkStatus();
}

// Everything else is F32.
absl::Status GiveDense(const ArtifactPlan& plan, const GgufTensorPlan& tensor,
                       const GgufTensorSpec& spec, TakePiece take) {
  if (tensor.tensor.empty()) return take(BytesOf(tensor.made));
  std::string made;
  LWQ_ASSIGN_OR_RETURN(const TensorView source,
                       EditedTensor(*plan.source, plan.edits, tensor.tensor, made));
  const int64_t cols = spec.shape.back();
  const int64_t rows = spec.num_elements() / cols;
  std::vector<float> values(static_cast<size_t>(rows * cols));
  LWQ_RETURN_IF_ERROR(WidenToFloat(tensor.tensor, source, /*refuse_non_finite=*/true,
                                   {values.data(), rows, cols, cols}));
  for (float& value : values) value += tensor.name.plus_one ? 1.0f : 0.0f;
  // A bias is reordered value by value.
  return GiveRows(BytesOf(values), rows == 1 ? cols : rows, tensor.heads, take);
}

// The content of the i-th tensor, in the order of the file.
absl::Status GiveTensor(const ArtifactPlan& plan, const GgufFilePlan& file, size_t i,
                        TakePiece take) {
  const GgufTensorPlan& tensor = file.tensors[i];
  const GgufTensorSpec& spec = file.layout.tensors[i];
  return tensor.modules.empty() ? GiveDense(plan, tensor, spec, take)
                                : GiveUnit(plan, tensor, spec, take);
}

absl::StatusOr<std::vector<WrittenFile>> Write(const ArtifactPlan& plan,
                                               const std::string& directory,
                                               const WriteProgress& progress) {
  LWQ_ASSIGN_OR_RETURN(const auto file,
                       PlanGgufFile(*plan.model, *plan.plan, plan.source->directory()));
  LWQ_RETURN_IF_ERROR(MakeDirectories(directory));
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> present, ListDirectory(directory));
  if (!present.empty()) {
    return Failure(reasons::kOutputNotEmpty, absl::StrCat("writing an artifact to ", directory,
                                                          ": it already has files in it"));
  }
  const std::string path = JoinPath(directory, kGgufFileName);
  const GgufLayout& layout = file->layout;
  LWQ_ASSIGN_OR_RETURN(const auto writer, GgufWriter::Create(path, layout));
  for (size_t i = 0; i < layout.tensors.size(); ++i) {
    const auto append = [&](Piece piece) { return writer->Append(layout.tensors[i].name, piece); };
    LWQ_RETURN_IF_ERROR(GiveTensor(plan, *file, i, append));
    if (progress) LWQ_RETURN_IF_ERROR(progress(layout.offsets[i], layout.file_bytes));
  }
  LWQ_RETURN_IF_ERROR(writer->Finish());
  LWQ_ASSIGN_OR_RETURN(std::string sha256, Sha256HexOfFile(path));
  LWQ_RETURN_IF_ERROR(SyncDirectory(directory));
  return std::vector<WrittenFile>{{kGgufFileName, layout.file_bytes, std::move(sha256)}};
}

absl::Status Mismatch(const std::string& path, absl::string_view what) {
  return Failure(reasons::kVerifyMismatch, absl::StrCat("verifying ", path, ": ", what));
}

// Names, types, shapes and places of tensors, keys and the tokenizer: byte for byte.
absl::Status VerifyHeader(const GgufLayout& layout, const std::string& path) {
  LWQ_ASSIGN_OR_RETURN(const auto mapped, MappedFile::Open(path));
  const Piece bytes = mapped->bytes();
  if (static_cast<int64_t>(bytes.size()) != layout.file_bytes) {
    return Mismatch(
        path, absl::StrCat("it has ", bytes.size(), " bytes, planned were ", layout.file_bytes));
  }
  if (std::memcmp(bytes.data(), layout.header.data(), layout.header.size()) != 0) {
    return Mismatch(path, "its header (keys, tokenizer, tensors) is not the planned one");
  }
  return absl::OkStatus();
}

absl::StatusOr<VerifyReport> Verify(const ArtifactPlan& plan, const std::string& directory) {
  LWQ_ASSIGN_OR_RETURN(const auto file,
                       PlanGgufFile(*plan.model, *plan.plan, plan.source->directory()));
  const std::string path = JoinPath(directory, kGgufFileName);
  LWQ_RETURN_IF_ERROR(VerifyHeader(file->layout, path));
  LWQ_ASSIGN_OR_RETURN(const auto written, GgufFile::Open(path));
  VerifyReport report;
  report.weight_bytes = file->layout.file_bytes;
  for (size_t i = 0; i < file->tensors.size(); ++i) {
    const std::string& name = file->layout.tensors[i].name;
    const int index = written->Find(name);
    if (index < 0) return Mismatch(path, absl::StrCat("tensor ", name, " is missing"));
    Piece rest = written->Bytes(index);
    const auto compare = [&](Piece piece) -> absl::Status {
      if (rest.size() < piece.size() || std::memcmp(rest.data(), piece.data(), piece.size()) != 0) {
        return Mismatch(path, absl::StrCat("tensor ", name, " differs from what it was made of"));
      }
      rest.remove_prefix(piece.size());
      return absl::OkStatus();
    };
    LWQ_RETURN_IF_ERROR(GiveTensor(plan, *file, i, compare));
    if (!rest.empty()) return Mismatch(path, absl::StrCat("tensor ", name, " is too long"));
    const WeightFormat* format = file->tensors[i].format;
    ++(format != nullptr && !format->dense() ? report.num_quantized_linears
                                             : report.num_dense_tensors);
  }
  return report;
}

bool IsGguf(absl::string_view name) { return name == kGgufFileName; }

bool HasGguf(const std::string& directory) {
  return FileExists(JoinPath(directory, kGgufFileName));
}

}  // namespace

constinit const ContainerDef ContainerDefs::gguf = {
    .format = &ArtifactFormatDefs::gguf,
    .write = &Write,
    .verify = &Verify,
    .is_weight_file = &IsGguf,
    .is_in = &HasGguf,
    .open = &OpenGgufWeights,
    .describes_itself = false,
};

}  // namespace lwq
