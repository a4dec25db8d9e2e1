#include "client/following.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/hash.h"

namespace lwq::client {
namespace {

// A request comes from a job's label too, which may be anything: hashed, it is a file's name.
std::string LockPath(const std::string& run_directory, absl::string_view request) {
  return JoinPath(run_directory, absl::StrCat(Sha256Hex(request), ".followed"));
}

absl::StatusOr<std::unique_ptr<FileLock>> Join(const std::string& path) {
  constexpr int kTries = 10;
  for (int i = 0; i < kTries; ++i) {
    auto lock = FileLock::Acquire(path, FileLock::Mode::kShared, absl::Seconds(5));
    // Else it waited for one that removed the file: others would lock another of that name.
    if (!lock.ok() || (*lock)->IsOf(path)) return lock;
  }
  return absl::UnavailableError(absl::StrCat(path, " was removed again and again"));
}

bool RunAlone(const std::string& path, const std::function<void()>& then) {
  const auto lock = FileLock::Acquire(path, FileLock::Mode::kExclusive, absl::ZeroDuration());
  if (!lock.ok() || !(*lock)->IsOf(path)) return false;
  then();
  ::unlink(path.c_str());
  return true;
}

}  // namespace

Following::Following(const std::string& run_directory, absl::string_view request)
    : path_(LockPath(run_directory, request)), lock_(Join(path_)) {}

bool Following::End(const std::function<void()>& if_last) {
  if (!lock_.ok()) return false;
  lock_ = absl::UnavailableError("ended");
  return RunAlone(path_, if_last);
}

bool UnlessFollowed(const std::string& run_directory, absl::string_view request,
                    const std::function<void()>& then) {
  return RunAlone(LockPath(run_directory, request), then);
}

}  // namespace lwq::client
