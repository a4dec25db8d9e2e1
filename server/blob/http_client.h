// HTTP requests with whole bodies, by libcurl. Used by the S3 store only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

struct HttpRequest {
  std::string method;
  std::string url;
  std::map<std::string, std::string> headers;
  absl::string_view body;
  int64_t max_answer_bytes = int64_t{1} << 20;
};

struct HttpAnswer {
  int code = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// Thread-safe; connections are kept and used again.
class HttpClient {
 public:
  HttpClient();
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // An answer of any code is OK. UNAVAILABLE "HTTP_FAILED" when none came whole: not reached in 2
  // s, silent for 30 s, longer than it may be. No redirect is followed, and the URL, which may be a
  // secret, is in no message.
  absl::StatusOr<HttpAnswer> Send(const HttpRequest& request);

 private:
  struct Handles;
  const std::unique_ptr<Handles> handles_;
};

}  // namespace lwq
