#include "worker/runner/task_input.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/engine/eval/calibration.h"

namespace lwq {
namespace {

constexpr int64_t kMaxDatasetBytes = int64_t{1} << 30;

absl::string_view InputName(LinearInput input) {
  switch (input) {
    case LinearInput::kAttention:
      return "attention";
    case LinearInput::kAttentionOutput:
      return "attention_output";
    case LinearInput::kMlp:
      return "mlp";
    case LinearInput::kMlpHidden:
      return "mlp_hidden";
  }
  return "";
}

// Sequences [first, end) of `batch` as a batch of their own.
TokenBatch Sequences(const TokenBatch& batch, size_t first, size_t end) {
  TokenBatch out;
  for (size_t i = first; i < end; ++i) {
    const Segment& segment = batch.segments[i];
    out.Add(absl::MakeConstSpan(batch.tokens)
                .subspan(static_cast<size_t>(segment.begin), static_cast<size_t>(segment.size)));
  }
  return out;
}

}  // namespace

absl::StatusOr<OpenedModel> OpenModel(const std::string& directory) {
  OpenedModel model;
  LWQ_ASSIGN_OR_RETURN(model.spec, ReadDecoderSpec(directory));
  LWQ_ASSIGN_OR_RETURN(model.checkpoint, Checkpoint::Open(directory));
  LWQ_ASSIGN_OR_RETURN(model.inventory, TakeInventory(model.spec, *model.checkpoint));
  model.weights = MakeCheckpointWeights(model.checkpoint.get());
  return model;
}

absl::StatusOr<OpenedModel> OpenModel(const v1::ModelInput& model) {
  for (const v1::ModelFile& file : model.manifest().files()) {
    const std::string path = JoinPath(model.directory(), file.name());
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) {
      return PreconditionFailure(
          "MODEL_CHANGED", absl::StrCat("model ", model.directory(), ": ", file.name(),
                                        " is gone since it was registered (", std::strerror(errno),
                                        "); register it again"));
    }
    const int64_t modified = info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec;
    if (info.st_size != file.size_bytes() || modified != file.modified_ns()) {
      return PreconditionFailure(
          "MODEL_CHANGED", absl::StrCat("model ", model.directory(), ": ", file.name(),
                                        " changed since it was registered; register it again"));
    }
  }
  return OpenModel(model.directory());
}

absl::StatusOr<std::string> FetchInputBlob(const TaskContext& context, absl::string_view role,
                                           absl::string_view blob_name) {
  for (const v1::TaskInput& input : context.lease->inputs()) {
    if (input.role() != role) continue;
    for (const v1::NamedBlob& named : input.output().blobs()) {
      if (named.name() == blob_name) return context.blobs->Fetch(named.blob());
    }
  }
  return absl::InternalError(absl::StrCat("task ", context.lease->task(), " was leased without \"",
                                          blob_name, "\" of a ", role, " task"));
}

std::string HiddenBlobName(int layer) { return absl::StrCat("hidden.", layer); }
std::string StateBlobName(int layer) { return absl::StrCat("state.", layer); }
std::string GramBlobName(int layer, LinearInput input) {
  return absl::StrCat("gram.", layer, ".", InputName(input));
}
std::string HeadGramBlobName() { return "gram.head"; }

absl::StatusOr<ComputeType> ParseComputeType(absl::string_view text) {
  if (text.empty() || text == "f32") return ComputeType::kF32;
  if (text == "bf16") return ComputeType::kBF16;
  return InvalidFailure("COMPUTE_UNKNOWN",
                        absl::StrCat("compute \"", text, "\" is not one of f32, bf16"));
}

absl::StatusOr<std::string> ReadDataset(const TaskContext& context, const v1::BlobRef& blob) {
  LWQ_ASSIGN_OR_RETURN(std::string path, context.blobs->Fetch(blob));
  return ReadFile(path, kMaxDatasetBytes);
}

DatasetKind KindOf(v1::Dataset::Kind kind) {
  return kind == v1::Dataset::JSONL ? DatasetKind::kJsonLines : DatasetKind::kText;
}

absl::StatusOr<TokenBatch> LoadCalibration(const TaskContext& context, const std::string& directory,
                                           const DecoderSpec& spec,
                                           const v1::CalibrationInput& calibration) {
  LWQ_ASSIGN_OR_RETURN(std::string bytes, ReadDataset(context, calibration.dataset()));
  LWQ_ASSIGN_OR_ANNOTATE(std::vector<std::string> documents,
                         ReadDocuments(bytes, KindOf(calibration.dataset_kind())),
                         "calibration text");
  LWQ_ASSIGN_OR_RETURN(auto tokenizer, LoadTokenizer(directory));
  CalibrationOptions options;
  options.num_tokens = calibration.num_tokens();
  options.sequence_length = std::min(calibration.sequence_length(), spec.max_positions);
  LWQ_ASSIGN_OR_ANNOTATE(std::vector<std::vector<int32_t>> sequences,
                         SampleCalibration(*tokenizer, documents, options), "calibration text");
  TokenBatch batch;
  for (const std::vector<int32_t>& sequence : sequences) batch.Add(sequence);
  return batch;
}

TokenBatch LeadingSequences(const TokenBatch& batch, int64_t num_tokens) {
  const std::vector<Segment>& all = batch.segments;
  size_t end = 0;
  while (end < all.size() && all[end].begin + all[end].size <= num_tokens) ++end;
  return Sequences(batch, 0, std::min(std::max<size_t>(end, 1), all.size()));
}

TokenBatch TrailingSequences(const TokenBatch& batch, int64_t num_tokens) {
  const std::vector<Segment>& all = batch.segments;
  if (num_tokens <= 0 || all.empty()) return {};
  size_t first = all.size() - 1;
  while (first > 0 && batch.num_tokens() - all[first - 1].begin <= num_tokens) --first;
  return Sequences(batch, first, all.size());
}

absl::Status AddBlob(const TaskContext& context, const std::string& name, const std::string& path,
                     v1::TaskOutput& output) {
  LWQ_ASSIGN_OR_RETURN(v1::BlobRef blob, context.blobs->Store(path));
  v1::NamedBlob* named = output.add_blobs();
  named->set_name(name);
  *named->mutable_blob() = std::move(blob);
  return absl::OkStatus();
}

absl::Status AddRowsBlob(const TaskContext& context, const std::string& name, ConstMatrixView rows,
                         v1::TaskOutput& output) {
  const std::string path = JoinPath(context.blobs->ScratchDirectory(), name);
  LWQ_ASSIGN_OR_RETURN(auto writer, FileWriter::Create(path));
  for (int64_t r = 0; r < rows.rows; ++r) {
    LWQ_RETURN_IF_ERROR(
        writer->Append(absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(rows.Row(r)),
                                           static_cast<size_t>(rows.cols) * sizeof(float))));
  }
  LWQ_RETURN_IF_ERROR(writer->Close());
  return AddBlob(context, name, path, output);
}

absl::Status ReadRowsBlob(const std::string& path, MatrixView rows) {
  LWQ_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  const size_t row_bytes = static_cast<size_t>(rows.cols) * sizeof(float);
  if (file->bytes().size() != row_bytes * static_cast<size_t>(rows.rows)) {
    return CorruptFailure("BLOB_CORRUPT", absl::StrCat("hidden states have ", file->bytes().size(),
                                                       " bytes, expected ", row_bytes * rows.rows));
  }
  for (int64_t r = 0; r < rows.rows; ++r) {
    std::memcpy(rows.Row(r), file->bytes().data() + r * row_bytes, row_bytes);
  }
  return absl::OkStatus();
}

}  // namespace lwq
