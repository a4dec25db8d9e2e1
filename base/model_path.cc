#include "base/model_path.h"

#include <sys/stat.h>

#include <fstream>

#include "absl/strings/match.h"
#include "base/file.h"

namespace lwq {
namespace {

bool BeginsAsGguf(const std::string& path) {
  char magic[4] = {};
  std::ifstream file(path, std::ios::binary);
  return file.read(magic, sizeof(magic)) && std::string(magic, sizeof(magic)) == "GGUF";
}

}  // namespace

bool IsGgufFile(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
  return absl::EndsWithIgnoreCase(path, ".gguf") || BeginsAsGguf(path);
}

bool IsModelPath(const std::string& path) { return IsDirectory(path) || IsGgufFile(path); }

std::string FileOfModel(const std::string& model, absl::string_view name) {
  return JoinPath(IsDirectory(model) ? model : Dirname(model), name);
}

}  // namespace lwq
