#include "tests/fuzz/promise.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "base/failure.h"

namespace lwq::testing {
namespace {

class Folder {
 public:
  Folder() {
    const std::filesystem::path memory = "/dev/shm";
    const std::filesystem::path top =
        ::access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::temp_directory_path();
    std::string name = top / "lwq-fuzz-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

absl::Status ExpectTyped(const absl::Status& refusal) {
  if (refusal.ok()) return Broken("a refusal that is none");
  // The reason of a status without one is that of its code.
  if (refusal.GetPayload(kReasonPayload).has_value() && !absl::IsInternal(refusal) &&
      !refusal.message().empty()) {
    return absl::OkStatus();
  }
  return Broken(absl::StrCat("a refusal without a reason: ", refusal.ToString()));
}

absl::Status Broken(absl::string_view broken) { return absl::InternalError(broken); }

std::string ScratchFolder() {
  static const Folder folder;
  return folder.path();
}

std::string ScratchFile(absl::string_view name, absl::string_view content) {
  const std::string path = absl::StrCat(ScratchFolder(), "/", name);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (!file) std::abort();
  return path;
}

}  // namespace lwq::testing
