// Who waits for a job of the own server. Commands that ask for the same wait for the same job, so
// one that is interrupted may cancel it only where no other waits.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/file_lock.h"

namespace lwq::client {

// One command that waits, from before it looks for the job: so nobody cancels what it has found.
class Following {
 public:
  // `request` is the digest of what is asked (RequestDigest); its lock lies in `run_directory`.
  Following(const std::string& run_directory, absl::string_view request);
  ~Following() {
    End([] {});
  }
  Following(const Following&) = delete;
  Following& operator=(const Following&) = delete;

  // Ends the waiting. Where nobody else waits, `if_last` runs before anybody can begin to, and true
  // is returned. False where others wait or nobody can say: no lock was to be had.
  bool End(const std::function<void()>& if_last);

 private:
  const std::string path_;
  absl::StatusOr<std::unique_ptr<FileLock>> lock_;
};

// Runs `then` where no command waits for `request`, and keeps those that come from beginning to
// until it has returned. Whether it ran; false also where nobody can say.
bool UnlessFollowed(const std::string& run_directory, absl::string_view request,
                    const std::function<void()>& then);

}  // namespace lwq::client
