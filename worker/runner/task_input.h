// What the tasks share: finding their inputs in the lease, opening the model, the calibration
// tokens.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "proto/lwq/v1/task.pb.h"
#include "worker/engine/eval/dataset.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/weight_source.h"
#include "worker/engine/plan/model_inventory.h"
#include "worker/engine/tokenizer/tokenizer.h"
#include "worker/runner/task_runner.h"

namespace lwq {

// A source model, checked and open.
struct OpenedModel {
  std::unique_ptr<Checkpoint> checkpoint;
  DecoderSpec spec;
  ModelInventory inventory;
  std::unique_ptr<WeightSource> weights;
};

// Opens a directory with all checks.
absl::StatusOr<OpenedModel> OpenModel(const std::string& directory);
// Compares the files' sizes and times with the manifest: FAILED_PRECONDITION "MODEL_CHANGED" names
// the file when the model is no longer the one that was registered.
absl::Status CheckUnchanged(const v1::ModelInput& model);
// Both.
absl::StatusOr<OpenedModel> OpenModel(const v1::ModelInput& model);

// The output of the input task of `role`, whose blob `blob_name` it is; INTERNAL when the lease has
// none.
absl::StatusOr<std::string> FetchInputBlob(const TaskContext& context, absl::string_view role,
                                           absl::string_view blob_name);
// "hidden.3", "state.3": the names of task.proto.
std::string HiddenBlobName(int layer);
std::string StateBlobName(int layer);

// "" and "f32": F32; "bf16". INVALID_ARGUMENT "COMPUTE_UNKNOWN".
absl::StatusOr<ComputeType> ParseComputeType(absl::string_view text);

// A dataset blob, mapped: of a large one only what is looked at is read. And how to read it.
absl::StatusOr<std::unique_ptr<MappedFile>> MapDataset(const TaskContext& context,
                                                       const v1::BlobRef& blob);
absl::string_view TextOf(const MappedFile& file);
DatasetKind KindOf(v1::Dataset::Kind kind);

// The calibration sequences: the same for every task of a job. `spec` is the model's.
absl::StatusOr<std::shared_ptr<const TokenBatch>> LoadCalibration(
    const TaskContext& context, const v1::ModelInput& model, const DecoderSpec& spec,
    const v1::CalibrationInput& calibration);

// How a job's calibration text is shared out, in whole sequences: the statistics' text in front,
// and at the end what is held out from it, one part per use in the order of their names. A part
// that asks for tokens has at least one sequence; a text that is too short for all makes parts
// overlap.
enum class HeldOutUse { kScore, kTrial, kJudge };
struct HeldOutPart {
  TokenBatch batch;
  int64_t first_row = 0;  // of the part, among the held-out tokens
};
class HeldOut {
 public:
  // `text` of about `num_tokens` tokens outlives this.
  HeldOut(const TokenBatch& text, int64_t num_tokens, const v1::HeldOutText& sizes);
  // What statistics are made of: it does not depend on how much is held out behind it.
  TokenBatch fitted() const;
  TokenBatch rest() const;  // what is behind it
  TokenBatch all() const;   // all that is held out
  HeldOutPart Part(HeldOutUse use) const;

 private:
  const TokenBatch& text_;
  size_t fitted_end_ = 0;     // all of these are sequences of text_
  size_t first_ = 0;          // of what is held out
  size_t begin_[3], end_[3];  // of each part
};

// Adds a file under `name` to the output's blobs. `sha256`: if it was hashed while it was written.
absl::Status AddBlob(const TaskContext& context, const std::string& name, const std::string& path,
                     v1::TaskOutput& output, const std::string& sha256 = "");

// Writes rows as F32 to a new scratch file and adds it.
absl::Status AddRowsBlob(const TaskContext& context, const std::string& name, ConstMatrixView rows,
                         v1::TaskOutput& output);
// Reads such a file of `num_rows` rows, from row `first` on, into `rows`; DATA_LOSS when it has
// another size.
absl::Status ReadRowsBlob(const std::string& path, int64_t num_rows, int64_t first,
                          MatrixView rows);

}  // namespace lwq
