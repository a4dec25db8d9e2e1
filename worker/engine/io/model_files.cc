#include "worker/engine/io/model_files.h"

#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/model_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/gguf/gguf_config.h"
#include "worker/engine/gguf/gguf_reader.h"
#include "worker/engine/gguf/tokenizer_from_gguf.h"

namespace lwq {
namespace {

constexpr char kConfig[] = "config.json";
constexpr char kTokenizer[] = "tokenizer.json";
constexpr char kTokenizerConfig[] = "tokenizer_config.json";

absl::StatusOr<std::string> Make(const std::string& path, absl::string_view name) {
  LWQ_ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(path));
  const GgufMetadata& metadata = file->header().metadata;
  const auto made = [&]() -> absl::StatusOr<std::string> {
    if (name == kConfig) return GgufConfigJson(*file);
    if (name == kTokenizer) return GgufTokenizerJson(metadata);
    return GgufTokenizerConfigJson(metadata);
  };
  LWQ_ASSIGN_OR_ANNOTATE(std::string text, made(), "making ", name, " of ", path);
  return text;
}

}  // namespace

std::string GgufFileOf(const std::string& model) {
  if (!IsDirectory(model)) return IsGgufFile(model) ? model : "";
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory(model);
  if (!names.ok()) return "";
  std::string found;
  for (const std::string& name : *names) {
    if (name == "model.safetensors" || name == "model.safetensors.index.json") return "";
    if (!absl::EndsWithIgnoreCase(name, ".gguf")) continue;
    if (!found.empty()) return "";
    found = name;
  }
  return found.empty() ? "" : JoinPath(model, found);
}

std::vector<std::string> MadeFiles(const std::string& model) {
  if (GgufFileOf(model).empty()) return {};
  return {kConfig, kTokenizer, kTokenizerConfig};
}

bool HasModelFile(const std::string& model, absl::string_view name) {
  if (GgufFileOf(model).empty()) return FileExists(JoinPath(model, name));
  return name == kConfig || name == kTokenizer || name == kTokenizerConfig;
}

absl::StatusOr<std::string> ReadModelFile(const std::string& model, const std::string& name,
                                          int64_t max_bytes) {
  const std::string gguf = GgufFileOf(model);
  if (gguf.empty()) return ReadFile(JoinPath(model, name), max_bytes);
  if (!HasModelFile(model, name)) {
    return absl::NotFoundError(absl::StrCat(gguf, " has nothing to make ", name, " of"));
  }
  LWQ_ASSIGN_OR_RETURN(std::string text, Make(gguf, name));
  if (static_cast<int64_t>(text.size()) > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " made of ", gguf, " has ", text.size(), " bytes, at most ", max_bytes));
  }
  return text;
}

absl::StatusOr<std::string> ReadModelJson(const std::string& model, const std::string& name,
                                          const JsonLimits& limits) {
  if (GgufFileOf(model).empty()) return ReadJsonFile(JoinPath(model, name), limits);
  LWQ_ASSIGN_OR_RETURN(std::string text, ReadModelFile(model, name, limits.max_bytes));
  LWQ_RETURN_IF_ERROR(CheckJson(text, limits, absl::StrCat(model, ": ", name)));
  return text;
}

}  // namespace lwq
