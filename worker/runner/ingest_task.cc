// Validates a model directory, hashes its files and layers, and describes it for the planner.
#include <sys/stat.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/model_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "records/plan_records.h"
#include "worker/engine/artifact/companion_files.h"
#include "worker/engine/artifact/gguf_file_plan.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/io/stored_rows.h"
#include "worker/engine/tensor/row_coding.h"
#include "worker/engine/tensor/widen.h"
#include "worker/runner/task_input.h"

namespace lwq {
namespace {

absl::StatusOr<v1::ModelFile> DescribeFile(const std::string& directory, const std::string& name) {
  const std::string path = FileOfModel(directory, name);
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("reading ", path));
  }
  v1::ModelFile file;
  file.set_name(name);
  file.set_size_bytes(info.st_size);
  file.set_modified_ns(info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec);
  LWQ_ASSIGN_OR_RETURN(std::string sha256, Sha256HexOfFile(path));
  file.set_sha256(sha256);
  return file;
}

// The names of all tensors, sorted: of each layer, and last of all that is outside the layers.
std::vector<std::vector<std::string>> TensorsByLayer(const ModelInventory& inventory) {
  std::vector<std::vector<std::string>> names(static_cast<size_t>(inventory.num_layers) + 1);
  const auto names_at = [&names](Place place) -> std::vector<std::string>& {
    return place.in_layer() ? names[static_cast<size_t>(place.layer)] : names.back();
  };
  for (const AllocationUnit& unit : inventory.units) {
    for (const LinearShape& linear : unit.linears) {
      names_at(unit.place).push_back(absl::StrCat(linear.module, ".weight"));
    }
  }
  for (const DenseTensor& tensor : inventory.dense) names_at(tensor.place).push_back(tensor.name);
  for (std::vector<std::string>& part : names) std::sort(part.begin(), part.end());
  return names;
}

// Digest over names, dtypes, shapes and bytes of tensors, of 8-bit floats with their scales and of
// coded ones with their coding: layers of one digest share results.
absl::StatusOr<std::string> DigestTensors(const Checkpoint& checkpoint,
                                          const std::vector<std::string>& names) {
  Sha256 hash;
  const auto add = [&](const std::string& name, const TensorView& tensor) {
    std::string shape;
    for (int64_t dimension : tensor.shape) absl::StrAppend(&shape, dimension, ",");
    hash.Update(absl::StrCat(name, "\n", NameOf(tensor.dtype), "\n", shape, "\n"));
    if (tensor.coding != nullptr) hash.Update(absl::StrCat(tensor.coding->Id(), "\n"));
    hash.Update(tensor.bytes);
  };
  for (const std::string& name : names) {
    LWQ_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint.Get(name));
    add(name, tensor);
    if (!IsFp8(tensor.dtype)) continue;
    const std::string scales = Fp8ScalesName(name);
    LWQ_ASSIGN_OR_RETURN(const TensorView stored, checkpoint.Get(scales));
    add(scales, stored);
  }
  return hash.FinishHex();
}

// A tensor of floats is read in rows of its last dimension.
absl::Status RefuseNonFinite(const Checkpoint& checkpoint, const std::string& name) {
  constexpr int64_t kRows = 256;  // bounds the F32 copy
  LWQ_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint.Get(name));
  const int64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
  int64_t num_rows = 1;
  for (size_t d = 0; d + 1 < tensor.shape.size(); ++d) num_rows *= tensor.shape[d];
  if (cols == 0 || num_rows == 0) return absl::OkStatus();
  Matrix chunk(std::min(kRows, num_rows), cols);
  const int64_t row_bytes = cols * SizeOf(tensor.dtype);
  for (int64_t row = 0; row < num_rows; row += kRows) {
    const int64_t count = std::min(kRows, num_rows - row);
    if (IsCoded(tensor)) {
      LWQ_RETURN_IF_ERROR(ReadCodedRows(checkpoint, name, row, chunk.view().Rows(0, count)));
      continue;
    }
    const TensorView rows{
        tensor.dtype, {count, cols}, tensor.bytes.subspan(row * row_bytes, count * row_bytes)};
    LWQ_RETURN_IF_ERROR(WidenToFloat(name, rows, true, chunk.view().Rows(0, count)));
  }
  return absl::OkStatus();
}

absl::Status RefuseNonFinite(const TaskContext& context, const OpenedModel& model) {
  std::vector<std::string> names;
  for (const AllocationUnit& unit : model.inventory.units) {
    for (const LinearShape& linear : unit.linears) {
      names.push_back(absl::StrCat(linear.module, ".weight"));
    }
  }
  for (const DenseTensor& tensor : model.inventory.dense) names.push_back(tensor.name);
  for (size_t i = 0; i < names.size(); ++i) {
    LWQ_RETURN_IF_ERROR(
        context.progress(0.4 * i / names.size(), absl::StrCat("values of ", names[i])));
    LWQ_RETURN_IF_ERROR(RefuseNonFinite(*model.checkpoint, names[i]));
  }
  return absl::OkStatus();
}

// A head that is stored beside the embedding it is tied to has to be the same: transformers does
// not tie the two where they differ.
absl::Status CheckTiedHead(const OpenedModel& model) {
  const HeadSpec& head = model.spec.head;
  const std::string stored = head.linear().weight_name();
  if (!head.tied || !model.checkpoint->Has(stored)) return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(const TensorView weight, model.checkpoint->Get(stored));
  LWQ_ASSIGN_OR_RETURN(const TensorView embedding,
                       model.checkpoint->Get(model.spec.embedding.tensor));
  if (weight.dtype == embedding.dtype && weight.shape == embedding.shape &&
      std::equal(weight.bytes.begin(), weight.bytes.end(), embedding.bytes.begin(),
                 embedding.bytes.end())) {
    return absl::OkStatus();
  }
  return Failure(
      reasons::kConfigMismatch,
      absl::StrCat("config.json ties ", stored, " to ", model.spec.embedding.tensor,
                   ", but both are stored and they differ; set tie_word_embeddings to false"));
}

// A file that the model has or, of one made of a GGUF file's keys, its digest only: it lies
// nowhere.
absl::StatusOr<std::string> DigestMade(const std::string& model, const std::string& name) {
  constexpr int64_t kMostBytes = int64_t{1} << 30;
  LWQ_ASSIGN_OR_RETURN(const std::string text, ReadModelFile(model, name, kMostBytes));
  Sha256 hash;
  hash.Update(text);
  return hash.FinishHex();
}

// The model's files and what they say together: all of them, its configuration, its tokenizer.
absl::Status HashFiles(const TaskContext& context, const std::string& directory,
                       std::vector<std::string> names, const Checkpoint& checkpoint,
                       v1::ModelManifest& manifest) {
  const std::vector<std::string>& weights = checkpoint.file_names();
  names.insert(names.end(), weights.begin(), weights.end());
  names.push_back("config.json");
  std::sort(names.begin(), names.end());
  Sha256 digest, tokenizer_digest;
  for (const std::string& name : names) {
    const bool is_weight = std::find(weights.begin(), weights.end(), name) != weights.end();
    LWQ_RETURN_IF_ERROR(context.progress(0.5, absl::StrCat("hashing ", name)));
    v1::ModelFile file;
    const bool made = checkpoint.gguf() != nullptr && !is_weight;
    if (made) {
      LWQ_ASSIGN_OR_RETURN(*file.mutable_sha256(), DigestMade(directory, name));
    } else {
      LWQ_ASSIGN_OR_RETURN(file, DescribeFile(directory, name));
    }
    const std::string line = absl::StrCat(name, " ", file.size_bytes(), " ", file.sha256(), "\n");
    digest.Update(line);
    if (name == "config.json") manifest.set_config_digest(file.sha256());
    if (!is_weight && name != "config.json" && name != "generation_config.json") {
      tokenizer_digest.Update(line);
    }
    if (!made) *manifest.add_files() = std::move(file);
  }
  manifest.set_digest(digest.FinishHex());
  manifest.set_tokenizer_digest(tokenizer_digest.FinishHex());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunIngest(const TaskContext& context, const v1::IngestTask& task) {
  LWQ_RETURN_IF_ERROR(context.progress(0, "checking files"));
  LWQ_ASSIGN_OR_ANNOTATE(OpenedModel model, OpenModel(task.directory()), "model ",
                         task.directory());
  LWQ_ASSIGN_OR_RETURN(auto tokenizer, LoadTokenizer(task.directory()));

  v1::TaskOutput output;
  v1::ModelManifest& manifest = *output.mutable_ingest();
  manifest.set_family(model.spec.family);
  manifest.set_architecture(model.spec.architecture);
  LWQ_RETURN_IF_ERROR(DescribeForGguf(task.directory(), &model.inventory));
  *manifest.mutable_inventory() = InventoryToProto(model.inventory);
  manifest.set_weight_bytes(model.checkpoint->total_file_bytes());

  LWQ_RETURN_IF_ERROR(CheckTiedHead(model));
  LWQ_RETURN_IF_ERROR(RefuseNonFinite(context, model));

  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> companions,
                       ListCompanionFiles(task.directory()));
  LWQ_RETURN_IF_ERROR(
      HashFiles(context, task.directory(), companions, *model.checkpoint, manifest));

  const std::vector<std::vector<std::string>> tensors = TensorsByLayer(model.inventory);
  const int num_layers = model.spec.num_layers();
  for (int layer = 0; layer < num_layers; ++layer) {
    LWQ_RETURN_IF_ERROR(
        context.progress(0.6 + 0.4 * layer / num_layers, absl::StrCat("hashing layer ", layer)));
    LWQ_ASSIGN_OR_RETURN(std::string layer_digest,
                         DigestTensors(*model.checkpoint, tensors[static_cast<size_t>(layer)]));
    manifest.add_layer_digests(layer_digest);
  }
  LWQ_ASSIGN_OR_RETURN(std::string rest, DigestTensors(*model.checkpoint, tensors.back()));
  manifest.set_embedding_digest(rest);
  return output;
}

}  // namespace lwq
