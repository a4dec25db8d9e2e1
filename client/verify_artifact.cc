#include "client/verify_artifact.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/download.h"
#include "nlohmann/json.hpp"
#include "worker/engine/gguf/gguf_reader.h"

namespace lwq::client {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxManifestBytes = int64_t{64} << 20;

struct ListedFile {
  std::string name;
  int64_t bytes = 0;
  std::string sha256;
};

absl::Status Mismatch(const std::string& path, absl::string_view what) {
  return Failure(reasons::kVerifyMismatch, absl::StrCat("verifying ", LogSafe(path), ": ", what));
}

absl::StatusOr<std::vector<ListedFile>> ReadManifest(const std::string& path) {
  if (!FileExists(path)) {
    return Failure(reasons::kFileNotFound, absl::StrCat("there is no manifest ", LogSafe(path),
                                                        ", which lwq writes beside an artifact"));
  }
  LWQ_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxManifestBytes));
  const Json manifest = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  std::vector<ListedFile> files;
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_array()) {
    return Mismatch(path, "it is no manifest of lwq's");
  }
  for (const Json& file : manifest["files"]) {
    const bool good = file.is_object() && file.contains("name") && file["name"].is_string() &&
                      file.contains("bytes") && file["bytes"].is_number_unsigned() &&
                      file.contains("sha256") && file["sha256"].is_string() &&
                      IsPlainFileName(file["name"].get<std::string>());
    if (!good) return Mismatch(path, "a file of it has no plain name, size and SHA-256");
    files.push_back({file["name"].get<std::string>(), file["bytes"].get<int64_t>(),
                     file["sha256"].get<std::string>()});
  }
  if (files.empty()) return Mismatch(path, "it lists no files");
  return files;
}

absl::Status CheckFile(const std::string& path, const ListedFile& listed) {
  if (!FileExists(path)) return Mismatch(path, "it is missing");
  LWQ_ASSIGN_OR_RETURN(const int64_t bytes, FileSize(path));
  if (bytes != listed.bytes) {
    return Mismatch(path,
                    absl::StrCat("it has ", bytes, " bytes, the manifest says ", listed.bytes));
  }
  LWQ_ASSIGN_OR_RETURN(const std::string sha256, Sha256HexOfFile(path));
  if (sha256 == listed.sha256) return absl::OkStatus();
  return Mismatch(path, absl::StrCat("its SHA-256 is ", sha256, ", the manifest says ",
                                     LogSafe(listed.sha256)));
}

// Opens the file, which checks its structure, and looks at every value.
absl::StatusOr<int64_t> ReadWhole(const std::string& path) {
  LWQ_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
  const std::vector<GgufTensorSpec>& tensors = file->header().tensors;
  std::vector<float> row;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const GgufTypeDef& type = DefOf(tensors[i].type);
    const int64_t cols = tensors[i].shape.empty() ? 1 : tensors[i].shape.back();
    const uint8_t* bytes = file->Bytes(static_cast<int>(i)).data();
    row.resize(static_cast<size_t>(cols));
    for (int64_t r = 0; r < tensors[i].num_elements() / cols; ++r) {
      DequantizeRow(type, bytes + r * type.RowBytes(cols), cols, row.data());
      for (const float value : row) {
        if (std::isfinite(value)) continue;
        return Mismatch(path, absl::StrCat("tensor ", LogSafe(tensors[i].name), ", row ", r,
                                           " has a value that is not finite"));
      }
    }
  }
  return static_cast<int64_t>(tensors.size());
}

// What programs load by itself where it lies in a model's folder, whatever the manifest lists.
absl::Status CheckNothingElseIsLoaded(const std::string& directory,
                                      const std::vector<ListedFile>& files) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory));
  for (const std::string& name : names) {
    const bool is_loaded = absl::EndsWith(name, ".safetensors") || absl::EndsWith(name, ".bin") ||
                           absl::EndsWith(name, ".gguf") ||
                           name == "model.safetensors.index.json" || name == "quantize_config.json";
    const bool is_listed = std::any_of(
        files.begin(), files.end(), [&](const ListedFile& listed) { return listed.name == name; });
    if (!is_loaded || is_listed) continue;
    return Mismatch(JoinPath(directory, name),
                    "it is not in the manifest, and programs that open the folder would load it");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<VerifiedArtifact> VerifyArtifactAt(const std::string& path) {
  if (!FileExists(path)) {
    return Failure(reasons::kFileNotFound, absl::StrCat("there is no artifact ", LogSafe(path)));
  }
  const bool directory = IsDirectory(path);
  if (!directory && !IsFileOutput(path)) {
    return Failure(reasons::kUsage,
                   absl::StrCat(LogSafe(path), " is neither a directory nor a file FILE.gguf"));
  }
  LWQ_ASSIGN_OR_RETURN(const std::vector<ListedFile> files,
                       ReadManifest(directory ? JoinPath(path, "lwq-manifest.json")
                                              : ProofPath(path, "lwq-manifest.json")));
  if (!directory && files.size() != 1) {
    return Mismatch(path, absl::StrCat("the manifest beside it is of ", files.size(), " files"));
  }
  if (directory) LWQ_RETURN_IF_ERROR(CheckNothingElseIsLoaded(path, files));
  VerifiedArtifact verified;
  for (const ListedFile& listed : files) {
    const std::string file = directory ? JoinPath(path, listed.name) : path;
    LWQ_RETURN_IF_ERROR(CheckFile(file, listed));
    ++verified.num_files;
    verified.bytes += listed.bytes;
    if (!IsFileOutput(file)) continue;
    LWQ_ASSIGN_OR_RETURN(const int64_t tensors, ReadWhole(file));
    verified.num_tensors += tensors;
  }
  return verified;
}

}  // namespace lwq::client
