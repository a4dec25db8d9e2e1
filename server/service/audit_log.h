// Who changed what: a line of JSON for every call that changes something and for every call that
// was refused to its caller, whether it came to anything or not. Never a secret: what is written of
// a request is the name of what it is about.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace lwq {

struct AuditEntry {
  std::string caller;     // Caller::name; empty: nobody that is known
  std::string principal;  // who has the caller's token
  std::string role;
  std::string peer;      // "ipv4:10.0.0.7:40112"
  std::string method;    // "JobService.CreateJob"
  std::string resource;  // "jobs/j-1"; empty: of no single one
  std::string request_id;
  std::string outcome;  // "OK", or the reason of the failure
};

struct AuditLogOptions {
  std::string path;  // "-": standard output
  // A file that grows beyond goes by PATH.1, the one before by PATH.2, and so on.
  int64_t max_bytes = 64 << 20;
  int num_kept = 8;
};

// Thread-safe.
class AuditLog {
 public:
  // `clock` outlives this.
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(const AuditLogOptions& options,
                                                        Clock* clock);
  ~AuditLog();
  AuditLog(const AuditLog&) = delete;
  AuditLog& operator=(const AuditLog&) = delete;

  // One line. What cannot be written is complained of in the server's log; calls go on. Of callers
  // that nobody knows at most ten lines a second are written, and how many were not, so that they
  // cannot drive out what others did.
  void Write(const AuditEntry& entry);

 private:
  AuditLog(const AuditLogOptions& options, Clock* clock, int fd)
      : options_(options), clock_(clock), fd_(fd) {}
  // False for a line that is left out.
  bool TakeTurn(bool known) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Append(absl::string_view line) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Rotate() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const AuditLogOptions options_;
  Clock* const clock_;
  Mutex mu_;
  int fd_ ABSL_GUARDED_BY(mu_);
  int64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool complained_ ABSL_GUARDED_BY(mu_) = false;  // of a line that could not be written
  absl::Duration second_ ABSL_GUARDED_BY(mu_) = -absl::InfiniteDuration();  // when it began
  int strangers_ ABSL_GUARDED_BY(mu_) = 0;                                  // lines of that second
  int64_t left_out_ ABSL_GUARDED_BY(mu_) = 0;                               // since the last line
};

}  // namespace lwq
