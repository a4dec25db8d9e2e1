#include "worker/runner/task_input.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hashing_writer.h"
#include "base/model_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "records/canonical.h"
#include "worker/engine/artifact/quantization_config.h"
#include "worker/engine/eval/calibration.h"

namespace lwq {
namespace {

constexpr size_t kMaxDatasetBytes = size_t{1} << 30;  // of a calibration text

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
  LWQ_RETURN_IF_ERROR(CheckFp8Declared(*model.checkpoint));
  LWQ_ASSIGN_OR_RETURN(model.inventory, TakeInventory(model.spec, *model.checkpoint));
  model.weights = MakeCheckpointWeights(model.checkpoint.get());
  return model;
}

absl::Status CheckUnchanged(const v1::ModelInput& model) {
  for (const v1::ModelFile& file : model.manifest().files()) {
    const std::string path = FileOfModel(model.directory(), file.name());
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) {
      return Failure(reasons::kModelChanged,
                     absl::StrCat("model ", model.directory(), ": ", file.name(),
                                  " is gone since it was registered (", std::strerror(errno),
                                  "); register it again"));
    }
    const int64_t modified = info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec;
    if (info.st_size != file.size_bytes() || modified != file.modified_ns()) {
      return Failure(reasons::kModelChanged,
                     absl::StrCat("model ", model.directory(), ": ", file.name(),
                                  " changed since it was registered; register it again"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<OpenedModel> OpenModel(const v1::ModelInput& model) {
  LWQ_RETURN_IF_ERROR(CheckUnchanged(model));
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

absl::StatusOr<ComputeType> ParseComputeType(absl::string_view text) {
  if (text.empty() || text == "f32") return ComputeType::kF32;
  if (text == "bf16") return ComputeType::kBF16;
  return Failure(reasons::kComputeUnknown,
                 absl::StrCat("compute \"", text, "\" is not one of f32, bf16"));
}

absl::StatusOr<std::unique_ptr<MappedFile>> MapDataset(const TaskContext& context,
                                                       const v1::BlobRef& blob) {
  LWQ_ASSIGN_OR_RETURN(std::string path, context.blobs->Fetch(blob));
  return MappedFile::Open(path);
}

absl::string_view TextOf(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

DatasetKind KindOf(v1::Dataset::Kind kind) {
  return kind == v1::Dataset::JSONL ? DatasetKind::kJsonLines : DatasetKind::kText;
}

namespace {

absl::StatusOr<TokenBatch> MakeCalibration(const TaskContext& context, const std::string& directory,
                                           const DecoderSpec& spec,
                                           const v1::CalibrationInput& calibration) {
  LWQ_ASSIGN_OR_RETURN(const auto dataset, MapDataset(context, calibration.dataset()));
  if (dataset->bytes().size() > kMaxDatasetBytes) {
    return Failure(reasons::kDatasetInvalid,
                   absl::StrCat("the calibration text has ", dataset->bytes().size(),
                                " bytes, of at most ", kMaxDatasetBytes, "; give a part of it"));
  }
  LWQ_ASSIGN_OR_ANNOTATE(std::vector<std::string> documents,
                         ReadDocuments(TextOf(*dataset), KindOf(calibration.dataset_kind())),
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

}  // namespace

absl::StatusOr<std::shared_ptr<const TokenBatch>> LoadCalibration(
    const TaskContext& context, const v1::ModelInput& model, const DecoderSpec& spec,
    const v1::CalibrationInput& calibration) {
  const auto make = [&] { return MakeCalibration(context, model.directory(), spec, calibration); };
  if (context.calibration_tokens == nullptr) {
    LWQ_ASSIGN_OR_RETURN(TokenBatch batch, make());
    return std::make_shared<const TokenBatch>(std::move(batch));
  }
  // The configuration bounds the sequences' length.
  const std::string key =
      absl::StrCat(CanonicalBytes(calibration), model.manifest().tokenizer_digest(),
                   model.manifest().config_digest());
  return context.calibration_tokens->Get(key, make);
}

HeldOut::HeldOut(const TokenBatch& text, int64_t num_tokens, const v1::HeldOutText& sizes)
    : text_(text) {
  const int64_t wanted[] = {sizes.score_tokens(), sizes.trial_tokens(), sizes.judge_tokens()};
  size_t end = text.segments.size();
  for (int use = 2; use >= 0; --use) {
    size_t begin = end;
    int64_t tokens = 0;
    while (begin > 0 && tokens + text.segments[begin - 1].size <= wanted[use]) {
      tokens += text.segments[--begin].size;
    }
    if (wanted[use] > 0 && begin == end && !text.segments.empty()) {  // at least one
      end = std::max<size_t>(end, 1);
      begin = end - 1;
    }
    begin_[use] = begin;
    end_[use] = end;
    end = begin;
  }
  first_ = end;
  const int64_t fitted = num_tokens - wanted[0] - wanted[1] - wanted[2];
  const std::vector<Segment>& all = text.segments;
  while (fitted_end_ < all.size() && all[fitted_end_].begin + all[fitted_end_].size <= fitted) {
    ++fitted_end_;
  }
  fitted_end_ = std::min(std::max<size_t>(fitted_end_, 1), all.size());
}

TokenBatch HeldOut::fitted() const { return Sequences(text_, 0, fitted_end_); }

TokenBatch HeldOut::rest() const { return Sequences(text_, fitted_end_, text_.segments.size()); }

TokenBatch HeldOut::all() const { return Sequences(text_, first_, text_.segments.size()); }

HeldOutPart HeldOut::Part(HeldOutUse use) const {
  const size_t i = static_cast<size_t>(use);
  HeldOutPart part;
  part.batch = Sequences(text_, begin_[i], end_[i]);
  if (begin_[i] < text_.segments.size()) {
    part.first_row = text_.segments[begin_[i]].begin - text_.segments[first_].begin;
  }
  return part;
}

absl::Status AddBlob(const TaskContext& context, const std::string& name, const std::string& path,
                     v1::TaskOutput& output, const std::string& sha256) {
  LWQ_ASSIGN_OR_RETURN(v1::BlobRef blob, context.blobs->Store(path, sha256));
  v1::NamedBlob* named = output.add_blobs();
  named->set_name(name);
  *named->mutable_blob() = std::move(blob);
  return absl::OkStatus();
}

absl::Status AddRowsBlob(const TaskContext& context, const std::string& name, ConstMatrixView rows,
                         v1::TaskOutput& output) {
  const std::string path = JoinPath(context.blobs->ScratchDirectory(), name);
  LWQ_ASSIGN_OR_RETURN(const auto writer, HashingWriter::Create(path));
  for (int64_t r = 0; r < rows.rows; ++r) {
    LWQ_RETURN_IF_ERROR(
        writer->Append(absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(rows.Row(r)),
                                           static_cast<size_t>(rows.cols) * sizeof(float))));
  }
  LWQ_ASSIGN_OR_RETURN(const std::string digest, writer->Close());
  return AddBlob(context, name, path, output, digest);
}

absl::Status ReadRowsBlob(const std::string& path, int64_t num_rows, int64_t first,
                          MatrixView rows) {
  LWQ_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  const int64_t row_bytes = rows.cols * static_cast<int64_t>(sizeof(float));
  if (static_cast<int64_t>(file->bytes().size()) != row_bytes * num_rows || first < 0 ||
      first + rows.rows > num_rows) {
    return Failure(reasons::kBlobCorrupt, absl::StrCat("hidden states have ", file->bytes().size(),
                                                       " bytes, expected ", row_bytes * num_rows));
  }
  for (int64_t r = 0; r < rows.rows; ++r) {
    std::memcpy(rows.Row(r), file->bytes().data() + (first + r) * row_bytes,
                static_cast<size_t>(row_bytes));
  }
  return absl::OkStatus();
}

}  // namespace lwq
