#include "worker/engine/artifact/companion_files.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/io/model_files.h"

namespace lwq {
namespace {

namespace fs = std::filesystem;

// The folders in which the files behind a model directory's links may lie.
std::vector<fs::path> FoldersOf(const std::string& directory) {
  std::error_code error;
  const fs::path real = fs::canonical(directory, error);
  if (error) return {};
  std::vector<fs::path> folders = {real};
  // models--<owner>--<name>/snapshots/<revision> has links to
  // models--<owner>--<name>/blobs/<digest>.
  if (real.parent_path().filename() == "snapshots") {
    folders.push_back(real.parent_path().parent_path() / "blobs");
  }
  return folders;
}

bool LiesIn(const fs::path& file, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), file.begin(), file.end()).first ==
         folder.end();
}

}  // namespace

bool IsCompanionFile(absl::string_view name) {
  if (!IsPlainFileName(name) || name.front() == '.') return false;
  const std::string lower = absl::AsciiStrToLower(name);
  const size_t dot = lower.rfind('.');
  const std::string extension = dot == std::string::npos ? "" : lower.substr(dot);
  for (absl::string_view stem : {"license", "licence", "notice", "use_policy"}) {
    if (absl::StartsWith(lower, stem)) {
      return extension.empty() || extension == ".txt" || extension == ".md";
    }
  }
  bool known = extension == ".tiktoken";  // vocabularies are named after their model
  for (absl::string_view stem :
       {"tokenizer", "special_tokens_map", "added_tokens", "vocab", "merges", "generation_config",
        "chat_template", "spiece", "sentencepiece", "normalizer"}) {
    known = known || absl::StartsWith(lower, stem);
  }
  for (absl::string_view accepted : {".json", ".model", ".jinja", ".txt", ".tiktoken"}) {
    if (known && extension == accepted) return true;
  }
  return false;
}

absl::StatusOr<std::vector<std::string>> ListCompanionFiles(const std::string& directory) {
  std::vector<std::string> companions = MadeFiles(directory);
  if (!companions.empty()) {
    std::erase_if(companions, [](const std::string& name) { return !IsCompanionFile(name); });
    return companions;
  }
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(directory));
  const std::vector<fs::path> folders = FoldersOf(directory);
  for (const std::string& name : names) {
    if (!IsCompanionFile(name)) continue;
    const fs::path path = JoinPath(directory, name);
    std::error_code error;
    if (fs::is_symlink(path, error)) {
      const fs::path file = fs::canonical(path, error);
      if (error || std::none_of(folders.begin(), folders.end(),
                                [&](const fs::path& folder) { return LiesIn(file, folder); })) {
        return Failure(reasons::kLinkOutsideModel,
                       absl::StrCat("model ", directory, ": ", name,
                                    " is a link that leads out of the model's directory"));
      }
    }
    if (fs::is_regular_file(path, error)) companions.push_back(name);
  }
  return companions;
}

}  // namespace lwq
