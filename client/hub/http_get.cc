#include "client/hub/http_get.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq::client {
namespace {

constexpr long kConnectTimeoutMs = 10'000;
constexpr long kSilenceSeconds = 30;
constexpr long kMostRedirects = 5;
constexpr long kOk = 200, kPartial = 206;

// One transfer; libcurl calls back into it.
class Transfer {
 public:
  // Takes bytes of a body that is to be kept; false ends the transfer.
  using Take = std::function<bool(long code, const char* data, size_t size)>;

  Transfer(const HttpGet& get, Take take) : get_(get), take_(std::move(take)) {
    static const CURLcode once = curl_global_init(CURL_GLOBAL_DEFAULT);
    (void)once;
  }

  // The answer's code. With `from`, only what is behind it is asked for.
  absl::StatusOr<long> Run(int64_t from) {
    const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> handle(curl_easy_init(),
                                                                     &curl_easy_cleanup);
    if (handle == nullptr) return Unavailable("libcurl gave no handle");
    handle_ = handle.get();
    curl_slist* headers = curl_slist_append(nullptr, "User-Agent: lwqctl/" LWQ_VERSION);
    if (!get_.bearer.empty()) {
      headers =
          curl_slist_append(headers, absl::StrCat("Authorization: Bearer ", get_.bearer).c_str());
    }
    SetUp(headers);
    const std::string range = absl::StrCat(from, "-");
    if (from > 0) curl_easy_setopt(handle_, CURLOPT_RANGE, range.c_str());
    const CURLcode code = curl_easy_perform(handle_);
    curl_slist_free_all(headers);
    LWQ_RETURN_IF_ERROR(stopped_);
    if (code != CURLE_OK) return Unavailable(curl_easy_strerror(code));
    return Code();
  }

 private:
  void SetUp(curl_slist* headers) {
    curl_easy_setopt(handle_, CURLOPT_URL, get_.url.c_str());
    curl_easy_setopt(handle_, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(handle_, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(handle_, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(handle_, CURLOPT_MAXREDIRS, kMostRedirects);
    curl_easy_setopt(handle_, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle_, CURLOPT_CONNECTTIMEOUT_MS, kConnectTimeoutMs);
    curl_easy_setopt(handle_, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(handle_, CURLOPT_LOW_SPEED_TIME, kSilenceSeconds);
    curl_easy_setopt(handle_, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(handle_, CURLOPT_WRITEFUNCTION, &Transfer::OnBody);
    curl_easy_setopt(handle_, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(handle_, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(handle_, CURLOPT_XFERINFOFUNCTION, &Transfer::OnProgress);
    curl_easy_setopt(handle_, CURLOPT_XFERINFODATA, this);
  }

  long Code() const {
    long code = 0;
    curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &code);
    return code;
  }
  absl::Status Unavailable(absl::string_view why) const {
    return Failure(reasons::kHubUnavailable,
                   absl::StrCat("getting ", LogSafe(get_.url), ": ", why));
  }

  static size_t OnBody(char* data, size_t size, size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    const size_t bytes = size * count;
    const long code = transfer.Code();
    // Pages that tell of an error are not what was asked for.
    if (code != kOk && code != kPartial) return bytes;
    transfer.stopped_ = transfer.take_(code, data, bytes)
                            ? transfer.stopped_
                            : Failure(reasons::kHubInvalid,
                                      absl::StrCat("getting ", LogSafe(transfer.get_.url),
                                                   ": more came than was to come, or it could not "
                                                   "be kept"));
    return transfer.stopped_.ok() ? bytes : 0;
  }
  static int OnProgress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    auto& transfer = *static_cast<Transfer*>(self);
    if (transfer.stopped_.ok() && transfer.get_.may_go_on) {
      transfer.stopped_ = transfer.get_.may_go_on();
    }
    return transfer.stopped_.ok() ? 0 : 1;
  }

  const HttpGet& get_;
  const Take take_;
  CURL* handle_ = nullptr;
  absl::Status stopped_;  // why we ended it
};

absl::Status CheckCode(const HttpGet& get, long code) {
  if (code == kOk || code == kPartial) return absl::OkStatus();
  const std::string what = absl::StrCat("getting ", LogSafe(get.url), ": the answer is ", code);
  if (code == 401 || code == 403) {
    return Failure(reasons::kHubDenied,
                   absl::StrCat(what, get.bearer.empty() ? ", and no token was sent" : ""));
  }
  if (code == 404) return Failure(reasons::kHubNotFound, what);
  if (code == 408 || code == 429 || code >= 500) {
    return Failure(reasons::kHubUnavailable, what);
  }
  return Failure(reasons::kHubInvalid, what);
}

// A file that is open for appending.
class AppendedFile {
 public:
  explicit AppendedFile(const std::string& path)
      : fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {}
  ~AppendedFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  bool ok() const { return fd_ >= 0; }
  bool Append(const char* data, size_t size) {
    while (size > 0) {
      const ssize_t written = ::write(fd_, data, size);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return false;
      data += written;
      size -= static_cast<size_t>(written);
    }
    return true;
  }
  bool Clear() { return ::ftruncate(fd_, 0) == 0; }
  bool Flush() { return ::fsync(fd_) == 0; }

 private:
  const int fd_;
};

}  // namespace

absl::StatusOr<std::string> GetText(const HttpGet& get, int64_t max_bytes) {
  std::string text;
  Transfer transfer(get, [&](long, const char* data, size_t size) {
    if (static_cast<int64_t>(text.size() + size) > max_bytes) return false;
    text.append(data, size);
    return true;
  });
  LWQ_ASSIGN_OR_RETURN(const long code, transfer.Run(0));
  LWQ_RETURN_IF_ERROR(CheckCode(get, code));
  return text;
}

absl::Status GetFile(const HttpGet& get, const std::string& path, int64_t size_bytes,
                     const std::function<void(int64_t)>& progress) {
  int64_t have = FileExists(path) ? FileSize(path).value_or(0) : 0;
  AppendedFile file(path);
  if (!file.ok()) return absl::ErrnoToStatus(errno, absl::StrCat("writing ", path));
  if (have > size_bytes) {
    if (!file.Clear()) return absl::ErrnoToStatus(errno, absl::StrCat("cutting ", path));
    have = 0;
  }
  const int64_t from = have;
  bool begun = false;
  int error = 0;
  Transfer transfer(get, [&](long code, const char* data, size_t size) {
    if (!begun && from > 0 && code == kOk) {
      // The whole of it, though a part was asked for.
      if (!file.Clear()) return false;
      have = 0;
    }
    begun = true;
    if (have + static_cast<int64_t>(size) > size_bytes) return false;
    if (!file.Append(data, size)) {
      error = errno;
      return false;
    }
    have += static_cast<int64_t>(size);
    if (progress) progress(have);
    return true;
  });
  if (have == size_bytes) return absl::OkStatus();
  const absl::StatusOr<long> answered = transfer.Run(from);
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("writing ", path));
  LWQ_RETURN_IF_ERROR(answered.status());
  LWQ_RETURN_IF_ERROR(CheckCode(get, *answered));
  if (!file.Flush()) return absl::ErrnoToStatus(errno, absl::StrCat("flushing ", path));
  if (have == size_bytes) return absl::OkStatus();
  return Failure(reasons::kHubUnavailable,
                 absl::StrCat("getting ", LogSafe(get.url), ": it ended after ", have, " of ",
                              size_bytes, " bytes"));
}

}  // namespace lwq::client
