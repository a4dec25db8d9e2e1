// Opens the weight files of a model directory and makes one table of their tensors.
#include "worker/engine/io/checkpoint.h"

#include <algorithm>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/io/json_file.h"
#include "worker/engine/io/model_files.h"

namespace lwq {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = int64_t{64} << 20;
constexpr int kMaxIndexDepth = 8;
constexpr size_t kMaxFiles = 2000;

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(text.substr(0, 128)), "\"");
}

// model.safetensors.index.json: which shard holds each tensor.
struct ShardIndex {
  absl::btree_set<std::string> files;
  absl::flat_hash_map<std::string, std::string> file_of;
};

absl::StatusOr<ShardIndex> ReadShardIndex(const std::string& directory) {
  const std::string path = JoinPath(directory, kIndexFile);
  LWQ_ASSIGN_OR_RETURN(std::string text,
                       ReadJsonFile(path, {.max_bytes = kMaxIndexBytes,
                                           .max_depth = kMaxIndexDepth,
                                           .reason = reasons::kIndexInvalid.name}));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object()) {
    return Failure(reasons::kIndexInvalid, absl::StrCat(path, ": no object \"weight_map\" in it"));
  }
  ShardIndex index;
  for (const auto& item : map->items()) {
    if (!item.value().is_string()) {
      return Failure(reasons::kIndexInvalid, absl::StrCat(path, ": the shard of tensor ",
                                                          Quoted(item.key()), " is not a string"));
    }
    const std::string& file = item.value().get_ref<const std::string&>();
    if (!IsPlainFileName(file) || !absl::EndsWith(file, ".safetensors")) {
      return Failure(reasons::kIndexShardName,
                     absl::StrCat(path, ": tensor ", Quoted(item.key()), " is in ", Quoted(file),
                                  ", a plain name ending .safetensors is "
                                  "needed"));
    }
    index.files.insert(file);
    index.file_of.emplace(item.key(), file);
  }
  if (index.files.size() > kMaxFiles) {
    return Failure(reasons::kIndexInvalid,
                   absl::StrCat(path, ": ", index.files.size(), " shards, at most ", kMaxFiles));
  }
  return index;
}

// A key that occurs twice in the index is refused by the JSON check; it is the index naming a
// tensor twice.
absl::Status NameIndexFailure(const absl::Status& status) {
  if (ReasonOf(status) != reasons::kIndexInvalid.name) return status;
  const bool twice = absl::StrContains(status.message(), "occurs twice");
  return CorruptFailure(twice ? "INDEX_TENSOR_DUPLICATE" : "INDEX_INVALID", status.message());
}

absl::Status CheckShardAgainstIndex(const ShardIndex& index, const std::string& file_name,
                                    const SafetensorsHeader& header, absl::string_view directory) {
  for (const SafetensorsHeader::Entry& entry : header.entries) {
    const auto listed = index.file_of.find(entry.name);
    if (listed == index.file_of.end()) {
      return Failure(reasons::kIndexTensorUnlisted,
                     absl::StrCat(directory, ": ", file_name, " holds tensor ", Quoted(entry.name),
                                  " which ", kIndexFile, " does not list"));
    }
    if (listed->second != file_name) {
      return Failure(reasons::kIndexTensorDuplicate,
                     absl::StrCat(directory, ": tensor ", Quoted(entry.name), " is in ", file_name,
                                  " but ", kIndexFile, " puts it in ", listed->second));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& directory) {
  if (const std::string gguf = GgufFileOf(directory); !gguf.empty()) {
    return OpenGguf(directory, gguf);
  }
  ShardIndex index;
  bool sharded = false;
  // transformers looks for the single file first, then for the index; so does this.
  if (FileExists(JoinPath(directory, kSingleFile))) {
    index.files.insert(kSingleFile);
  } else if (FileExists(JoinPath(directory, kIndexFile))) {
    sharded = true;
    absl::StatusOr<ShardIndex> read = ReadShardIndex(directory);
    if (!read.ok()) return NameIndexFailure(read.status());
    index = *std::move(read);
  } else {
    return Failure(reasons::kWeightsMissing,
                   absl::StrCat(directory, ": neither ", kSingleFile, " nor ", kIndexFile,
                                " nor one GGUF file is there; of several GGUF files give one by "
                                "its path"));
  }
  auto checkpoint = std::unique_ptr<Checkpoint>(new Checkpoint());
  checkpoint->directory_ = directory;
  for (const std::string& name : index.files) {
    const std::string path = JoinPath(directory, name);
    if (!FileExists(path)) {
      return Failure(
          reasons::kIndexShardMissing,
          absl::StrCat(directory, ": ", kIndexFile, " names ", name, " which is not there"));
    }
    LWQ_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
    if (sharded) {
      LWQ_RETURN_IF_ERROR(CheckShardAgainstIndex(index, name, file->header(), directory));
    }
    for (const SafetensorsHeader::Entry& entry : file->header().entries) {
      checkpoint->tensors_.emplace(entry.name, file->View(entry));
      checkpoint->names_.push_back(entry.name);
    }
    checkpoint->total_file_bytes_ += file->size_bytes();
    checkpoint->file_names_.push_back(name);
    checkpoint->files_.push_back(std::move(file));
  }
  for (const auto& [tensor, file] : index.file_of) {
    if (!checkpoint->tensors_.contains(tensor)) {
      return CorruptFailure(reasons::kTensorMissing.name,
                            absl::StrCat(directory, ": ", kIndexFile, " puts tensor ",
                                         Quoted(tensor), " in ", file, " which does not hold it"));
    }
  }
  std::sort(checkpoint->names_.begin(), checkpoint->names_.end());
  return checkpoint;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::OpenGguf(const std::string& model,
                                                                 const std::string& path) {
  auto checkpoint = std::unique_ptr<Checkpoint>(new Checkpoint());
  checkpoint->directory_ = model;
  LWQ_ASSIGN_OR_ANNOTATE(checkpoint->gguf_, GgufTensors::Open(path), path);
  for (const auto& [name, view] : checkpoint->gguf_->tensors()) {
    if (!checkpoint->tensors_.emplace(name, view).second) {
      return Failure(reasons::kGgufTensor, absl::StrCat(path, ": two tensors are ", Quoted(name)));
    }
    checkpoint->names_.push_back(name);
  }
  std::sort(checkpoint->names_.begin(), checkpoint->names_.end());
  checkpoint->file_names_.push_back(Basename(path));
  checkpoint->total_file_bytes_ = checkpoint->gguf_->file().size_bytes();
  return checkpoint;
}

absl::StatusOr<TensorView> Checkpoint::Get(absl::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return Failure(reasons::kTensorMissing,
                   absl::StrCat(directory_, ": the weight files hold no tensor ", Quoted(name)));
  }
  return found->second;
}

}  // namespace lwq
