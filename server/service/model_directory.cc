#include "server/service/model_directory.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/model_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// "" when there is nothing.
std::string RealPath(const std::string& path) {
  char* resolved = ::realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return "";
  const std::string real = resolved;
  std::free(resolved);
  return real;
}

bool LiesIn(const std::string& path, const std::string& root) {
  return path == root || root == "/" || absl::StartsWith(path, absl::StrCat(root, "/"));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> RealRoots(const std::vector<std::string>& roots) {
  std::vector<std::string> real;
  for (const std::string& root : roots) {
    real.push_back(RealPath(root));
    if (!IsDirectory(real.back())) {
      return Failure(reasons::kPathNotAllowed,
                     absl::StrCat("model root \"", root, "\" is not a directory"));
    }
  }
  return real;
}

absl::StatusOr<std::string> CheckDirectory(const std::string& directory,
                                           const std::vector<std::string>& roots) {
  const absl::Status refused =
      Failure(reasons::kPathNotAllowed,
              absl::StrCat("\"", directory.substr(0, 500),
                           "\" is not an absolute path of a model directory or GGUF file that this "
                           "server may read"));
  if (!absl::StartsWith(directory, "/") || directory.find('\0') != std::string::npos) {
    return refused;
  }
  const std::string real = RealPath(directory);
  const bool allowed = roots.empty() || std::any_of(roots.begin(), roots.end(),
                                                    [&](const auto& r) { return LiesIn(real, r); });
  if (!IsModelPath(real) || !allowed) return refused;
  return real;
}

absl::Status CheckDirectories(const v1::JobSpec& spec, const std::vector<std::string>& roots) {
  if (!spec.has_evaluate()) return absl::OkStatus();
  const v1::EvaluateSpec& evaluate = spec.evaluate();
  LWQ_RETURN_IF_ERROR(CheckDirectory(evaluate.model_directory(), roots).status());
  if (evaluate.against_directory().empty()) return absl::OkStatus();
  return CheckDirectory(evaluate.against_directory(), roots).status();
}

}  // namespace lwq
