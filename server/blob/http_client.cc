#include "server/blob/http_client.h"

#include <curl/curl.h>

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/reasons.h"

namespace lwq {
namespace {

constexpr long kConnectTimeoutMs = 2'000;
constexpr long kSilenceSeconds = 30;
constexpr size_t kMaxHeaders = 200;

struct Answering {
  HttpAnswer answer;
  int64_t max_bytes = 0;
};

size_t TakeBody(char* data, size_t size, size_t count, void* self) {
  auto& answering = *static_cast<Answering*>(self);
  const size_t bytes = size * count;
  if (static_cast<int64_t>(answering.answer.body.size() + bytes) > answering.max_bytes) return 0;
  answering.answer.body.append(data, bytes);
  return bytes;
}

size_t TakeHeader(char* data, size_t size, size_t count, void* self) {
  auto& headers = static_cast<Answering*>(self)->answer.headers;
  const absl::string_view line(data, size * count);
  const size_t colon = line.find(':');
  if (colon != absl::string_view::npos && headers.size() < kMaxHeaders) {
    headers[absl::AsciiStrToLower(line.substr(0, colon))] =
        std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return size * count;
}

// Of the request; must live until it is done.
curl_slist* HeaderList(const HttpRequest& request) {
  curl_slist* list = nullptr;
  for (const auto& [name, value] : request.headers) {
    list = curl_slist_append(list, absl::StrCat(name, ": ", value).c_str());
  }
  // What curl would add by itself to a body.
  list = curl_slist_append(list, "Content-Type:");
  return curl_slist_append(list, "Expect:");
}

void SetUp(CURL* handle, const HttpRequest& request, curl_slist* headers, Answering& answering) {
  curl_easy_setopt(handle, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, kConnectTimeoutMs);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, kSilenceSeconds);
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &TakeBody);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &answering);
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, &TakeHeader);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, &answering);
  if (request.method == "HEAD") {
    curl_easy_setopt(handle, CURLOPT_NOBODY, 1L);
    return;
  }
  curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  if (request.method == "PUT" || request.method == "POST") {
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, request.body.empty() ? "" : request.body.data());
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE,
                     static_cast<curl_off_t>(request.body.size()));
  }
}

}  // namespace

struct HttpClient::Handles {
  CURL* Take() {
    MutexLock lock(&mu);
    if (free.empty()) return curl_easy_init();
    CURL* handle = free.back();
    free.pop_back();
    return handle;
  }
  void Return(CURL* handle) {
    curl_easy_reset(handle);  // keeps its connections
    MutexLock lock(&mu);
    free.push_back(handle);
  }
  ~Handles() {
    for (CURL* handle : free) curl_easy_cleanup(handle);
  }

  Mutex mu;
  std::vector<CURL*> free ABSL_GUARDED_BY(mu);
};

HttpClient::HttpClient() : handles_(std::make_unique<Handles>()) {
  static const CURLcode once = curl_global_init(CURL_GLOBAL_DEFAULT);
  (void)once;
}

HttpClient::~HttpClient() = default;

absl::StatusOr<HttpAnswer> HttpClient::Send(const HttpRequest& request) {
  CURL* const handle = handles_->Take();
  if (handle == nullptr) {
    return Failure(reasons::kHttpFailed, "libcurl gave no handle");
  }
  Answering answering;
  answering.max_bytes = request.max_answer_bytes;
  curl_slist* const headers = HeaderList(request);
  SetUp(handle, request, headers, answering);
  const CURLcode code = curl_easy_perform(handle);
  long answer_code = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &answer_code);
  curl_slist_free_all(headers);
  handles_->Return(handle);
  if (code != CURLE_OK) {
    return Failure(reasons::kHttpFailed,
                   absl::StrCat(request.method, ": ", curl_easy_strerror(code)));
  }
  answering.answer.code = static_cast<int>(answer_code);
  return std::move(answering.answer);
}

}  // namespace lwq
