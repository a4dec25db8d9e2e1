#include "server/service/audit_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"

namespace lwq {
namespace {

constexpr int kStrangersInASecond = 10;
constexpr size_t kMostBytesOfAField = 300;

int OpenFile(const std::string& path) {
  return ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

int64_t BytesOf(int fd) {
  struct stat info;
  return ::fstat(fd, &info) == 0 ? info.st_size : 0;
}

std::string LineOf(const AuditEntry& entry, absl::Time now, int64_t left_out) {
  nlohmann::ordered_json line;
  line["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", now, absl::UTCTimeZone());
  for (const auto& [key, value] : std::initializer_list<std::pair<const char*, const std::string*>>{
           {"caller", &entry.caller},
           {"principal", &entry.principal},
           {"role", &entry.role},
           {"peer", &entry.peer},
           {"method", &entry.method},
           {"resource", &entry.resource},
           {"request_id", &entry.request_id},
           {"outcome", &entry.outcome}}) {
    if (!value->empty()) line[key] = LogSafe(value->substr(0, kMostBytesOfAField));
  }
  if (left_out > 0) line["left_out"] = left_out;
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(const AuditLogOptions& options,
                                                         Clock* clock) {
  const int fd = options.path == "-" ? ::dup(STDOUT_FILENO) : OpenFile(options.path);
  if (fd < 0) {
    return Failure(reasons::kInvalidArgument,
                   absl::StrCat("opening the audit log ", options.path, ": ",
                                absl::ErrnoToStatus(errno, "").message()));
  }
  auto log = std::unique_ptr<AuditLog>(new AuditLog(options, clock, fd));
  MutexLock lock(&log->mu_);
  log->bytes_ = BytesOf(fd);
  return log;
}

AuditLog::~AuditLog() {
  MutexLock lock(&mu_);
  ::close(fd_);
}

void AuditLog::Write(const AuditEntry& entry) {
  MutexLock lock(&mu_);
  if (!TakeTurn(!entry.caller.empty())) {
    ++left_out_;
    return;
  }
  Append(LineOf(entry, clock_->Now(), std::exchange(left_out_, 0)));
}

bool AuditLog::TakeTurn(bool known) {
  if (known) return true;
  const absl::Duration now = clock_->Steady();
  if (now - second_ >= absl::Seconds(1)) {
    second_ = now;
    strangers_ = 0;
  }
  return strangers_++ < kStrangersInASecond;
}

void AuditLog::Append(absl::string_view line) {
  if (options_.path != "-" && bytes_ + static_cast<int64_t>(line.size()) > options_.max_bytes) {
    Rotate();
  }
  // In one piece, so that lines of several processes on one file or pipe stay whole.
  const ssize_t written = ::write(fd_, line.data(), line.size());
  if (written > 0) bytes_ += written;
  const bool good = written == static_cast<ssize_t>(line.size());
  if (!good && !complained_) {
    spdlog::error("the audit log {} cannot be written", LogSafe(options_.path));
  }
  complained_ = !good;
}

void AuditLog::Rotate() {
  const auto path = [&](int n) {
    return n == 0 ? options_.path : absl::StrCat(options_.path, ".", n);
  };
  for (int n = options_.num_kept - 1; n >= 0; --n) {
    ::rename(path(n).c_str(), path(n + 1).c_str());  // some are not there yet
  }
  const int fd = OpenFile(options_.path);
  if (fd < 0) return;  // the renamed one goes on
  ::close(fd_);
  fd_ = fd;
  bytes_ = BytesOf(fd);
}

}  // namespace lwq
