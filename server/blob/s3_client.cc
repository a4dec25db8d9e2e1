#include "server/blob/s3_client.h"

#include <stdlib.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/retry.h"
#include "base/status_macros.h"
#include "server/blob/s3_xml.h"

namespace lwq {
namespace {

constexpr RetryPolicy kPolicy = {.tries = 6};
constexpr absl::Duration kRequestLife = absl::Minutes(15);
constexpr int64_t kMaxErrorBytes = 64 << 10;
constexpr char kChecksumHeader[] = "x-amz-checksum-sha256";

absl::Status UrlError(const std::string& url, absl::string_view why) {
  return Failure(reasons::kBlobUrlInvalid,
                 absl::StrCat("\"", url, "\": ", why,
                              "; s3://BUCKET/PREFIX?endpoint=http://host:port&region=R"));
}

std::string Env(const char* name) {
  const char* value = ::getenv(name);
  return value == nullptr ? "" : value;
}

absl::Time ParseTime(const std::string& text) {
  absl::Time time;
  std::string error;
  // In lists as ISO 8601, in headers as HTTP's date.
  if (absl::ParseTime(absl::RFC3339_full, text, &time, &error) ||
      absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", text, &time, &error)) {
    return time;
  }
  return absl::UnixEpoch();
}

// An upload's end is answered at once, and what it came to stands in the body.
bool HasErrorInside(absl::string_view method, const HttpAnswer& answer) {
  return method == "POST" && absl::StrContains(answer.body, "<Error>");
}

// Whether the same request may succeed later.
bool IsTransient(absl::string_view method, const absl::StatusOr<HttpAnswer>& answer) {
  if (!answer.ok() || (answer->code < 300 && HasErrorInside(method, *answer))) return true;
  const int code = answer->code;
  return code >= 500 || code == 408 || code == 409 || code == 429;
}

}  // namespace

absl::StatusOr<S3Location> ParseS3Url(const std::string& url) {
  if (!absl::StartsWith(url, "s3://")) return UrlError(url, "not an S3 store");
  const std::vector<std::string> halves =
      absl::StrSplit(absl::StripPrefix(url, "s3://"), absl::MaxSplits('?', 1));
  const std::vector<std::string> place = absl::StrSplit(halves[0], absl::MaxSplits('/', 1));
  S3Location location;
  location.bucket = place[0];
  if (location.bucket.empty()) return UrlError(url, "no bucket");
  if (place.size() == 2 && !place[1].empty()) {
    location.prefix = absl::StrCat(absl::StripSuffix(place[1], "/"), "/");
  }
  location.region = "us-east-1";
  std::string endpoint;
  if (halves.size() == 2) {
    for (absl::string_view field : absl::StrSplit(halves[1], '&')) {
      const std::vector<std::string> parts = absl::StrSplit(field, absl::MaxSplits('=', 1));
      const std::string value = parts.size() == 2 ? parts[1] : "";
      if (value.empty()) return UrlError(url, absl::StrCat("\"", field, "\" has no value"));
      if (parts[0] == "endpoint") {
        endpoint = value;
      } else if (parts[0] == "region") {
        location.region = value;
      } else {
        return UrlError(url, absl::StrCat("unknown \"", parts[0], "\""));
      }
    }
  }
  if (endpoint.empty()) {
    location.scheme = "https";
    location.host = absl::StrCat(location.bucket, ".s3.", location.region, ".amazonaws.com");
    return location;
  }
  const std::vector<std::string> parts = absl::StrSplit(endpoint, absl::MaxSplits("://", 1));
  if (parts.size() != 2 || (parts[0] != "http" && parts[0] != "https")) {
    return UrlError(url, "the endpoint is no http:// or https:// address");
  }
  location.scheme = parts[0];
  location.host = std::string(absl::StripSuffix(parts[1], "/"));
  location.is_path_style = true;
  return location;
}

absl::StatusOr<S3Credentials> S3CredentialsFromEnvironment() {
  S3Credentials credentials{Env("AWS_ACCESS_KEY_ID"), Env("AWS_SECRET_ACCESS_KEY"),
                            Env("AWS_SESSION_TOKEN")};
  if (credentials.key_id.empty() || credentials.secret.empty()) {
    return Failure(reasons::kBlobDenied,
                   "an S3 store needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to be set");
  }
  return credentials;
}

std::string S3Checksum(absl::string_view bytes) {
  return absl::Base64Escape(absl::HexStringToBytes(Sha256Hex(bytes)));
}

S3Target S3Client::TargetOf(const Call& call) const {
  S3Target target;
  target.scheme = location_.scheme;
  target.host = location_.host;
  target.path =
      absl::StrCat(location_.is_path_style ? absl::StrCat("/", location_.bucket) : "", "/",
                   call.is_of_bucket ? "" : absl::StrCat(location_.prefix, call.key));
  if (call.is_of_bucket && location_.is_path_style) target.path.pop_back();
  target.query = call.query;
  return target;
}

std::string S3Client::Sign(absl::string_view method, const std::string& key,
                           const S3Headers& headers, absl::Duration life) {
  return SignedUrl(method, TargetOf({.method = std::string(method), .key = key}), headers,
                   credentials_, location_.region, clock_->Now(), life);
}

absl::StatusOr<HttpAnswer> S3Client::Send(const Call& call) {
  HttpRequest request;
  request.method = call.method;
  request.headers = call.headers;
  request.body = call.body;
  request.max_answer_bytes = call.max_answer_bytes;
  for (int attempt = 0;; ++attempt) {
    request.url = SignedUrl(call.method, TargetOf(call), call.headers, credentials_,
                            location_.region, clock_->Now(), kRequestLife);
    absl::StatusOr<HttpAnswer> answer = http_.Send(request);
    if (IsTransient(call.method, answer) && attempt + 1 < kPolicy.tries) {
      clock_->SleepFor(WithJitter(WaitAfter(kPolicy, attempt)));
      continue;
    }
    if (!answer.ok()) {
      return Failure(reasons::kBlobIo,
                     absl::StrCat(location_.host, ": ", answer.status().message()));
    }
    if (answer->code >= 300 || HasErrorInside(call.method, *answer)) return ErrorOf(call, *answer);
    return answer;
  }
}

absl::Status S3Client::ErrorOf(const Call& call, const HttpAnswer& answer) const {
  const std::string code = XmlText(answer.body, "Code");
  const std::string message = absl::StrCat(
      call.method, " ", location_.bucket, "/", location_.prefix, call.key, " at ", location_.host,
      ": ", answer.code, " ", code, " ", XmlText(answer.body, "Message").substr(0, 300));
  if (answer.code == 404) return Failure(reasons::kNotFound, message);
  if (answer.code == 401 || answer.code == 403) return Failure(reasons::kBlobDenied, message);
  if (answer.code == 507 || code == "QuotaExceeded" || code == "XMinioStorageFull") {
    return Failure(reasons::kStorageFull, message);
  }
  return Failure(reasons::kBlobIo, message);
}

absl::Status S3Client::CheckBucket() {
  return Send({.method = "HEAD", .is_of_bucket = true}).status();
}

absl::StatusOr<S3Object> S3Client::Head(const std::string& key) {
  LWQ_ASSIGN_OR_RETURN(HttpAnswer answer, Send({.method = "HEAD", .key = key}));
  S3Object object{key, 0, ParseTime(answer.headers["last-modified"])};
  if (!absl::SimpleAtoi(answer.headers["content-length"], &object.size_bytes)) {
    return Failure(reasons::kBlobIo,
                   absl::StrCat(location_.host, " does not say how long ", key, " is"));
  }
  return object;
}

absl::StatusOr<std::string> S3Client::Get(const std::string& key, int64_t offset, int64_t size) {
  LWQ_ASSIGN_OR_RETURN(
      HttpAnswer answer,
      Send({.method = "GET",
            .key = key,
            .headers = {{"range", absl::StrCat("bytes=", offset, "-", offset + size - 1)}},
            .max_answer_bytes = size + kMaxErrorBytes}));
  if (static_cast<int64_t>(answer.body.size()) <= size) return std::move(answer.body);
  return Failure(reasons::kBlobIo,
                 absl::StrCat(location_.host, " gave more of ", key, " than was asked for"));
}

absl::Status S3Client::Put(const std::string& key, absl::string_view body,
                           const std::string& checksum) {
  return Send({.method = "PUT", .key = key, .headers = {{kChecksumHeader, checksum}}, .body = body})
      .status();
}

absl::Status S3Client::Delete(const std::string& key) {
  absl::Status status = Send({.method = "DELETE", .key = key}).status();
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::StatusOr<std::vector<S3Object>> S3Client::List(const std::string& prefix,
                                                     const std::string& after, int limit) {
  Call call{.method = "GET", .is_of_bucket = true};
  call.query = {{"list-type", "2"},
                {"prefix", absl::StrCat(location_.prefix, prefix)},
                {"max-keys", absl::StrCat(limit)}};
  if (!after.empty()) call.query["start-after"] = absl::StrCat(location_.prefix, after);
  LWQ_ASSIGN_OR_RETURN(const HttpAnswer answer, Send(call));
  std::vector<S3Object> objects;
  for (absl::string_view entry : XmlElements(answer.body, "Contents")) {
    S3Object& object = objects.emplace_back();
    object.key = std::string(absl::StripPrefix(XmlText(entry, "Key"), location_.prefix));
    object.written = ParseTime(XmlText(entry, "LastModified"));
    if (!absl::SimpleAtoi(XmlText(entry, "Size"), &object.size_bytes)) object.size_bytes = -1;
  }
  return objects;
}

absl::StatusOr<std::string> S3Client::StartUpload(const std::string& key) {
  LWQ_ASSIGN_OR_RETURN(const HttpAnswer answer,
                       Send({.method = "POST",
                             .key = key,
                             .query = {{"uploads", ""}},
                             .headers = {{"x-amz-checksum-algorithm", "SHA256"}}}));
  const std::string upload = XmlText(answer.body, "UploadId");
  if (!upload.empty()) return upload;
  return Failure(reasons::kBlobIo, absl::StrCat(location_.host, " gave no name to an upload"));
}

absl::StatusOr<S3Part> S3Client::PutPart(const std::string& key, const std::string& upload,
                                         int number, absl::string_view body) {
  S3Part part;
  part.checksum = S3Checksum(body);
  LWQ_ASSIGN_OR_RETURN(HttpAnswer answer,
                       Send({.method = "PUT",
                             .key = key,
                             .query = {{"partNumber", absl::StrCat(number)}, {"uploadId", upload}},
                             .headers = {{kChecksumHeader, part.checksum}},
                             .body = body}));
  part.etag = answer.headers["etag"];
  return part;
}

absl::Status S3Client::FinishUpload(const std::string& key, const std::string& upload,
                                    const std::vector<S3Part>& parts) {
  std::string body = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
  for (size_t i = 0; i < parts.size(); ++i) {
    absl::StrAppend(&body, "<Part><ChecksumSHA256>", parts[i].checksum, "</ChecksumSHA256><ETag>",
                    parts[i].etag, "</ETag><PartNumber>", i + 1, "</PartNumber></Part>");
  }
  body += "</CompleteMultipartUpload>";
  absl::Status status =
      Send({.method = "POST", .key = key, .query = {{"uploadId", upload}}, .body = body}).status();
  // The answer to an earlier try may have been lost.
  if (absl::IsNotFound(status) && Head(key).ok()) return absl::OkStatus();
  return status;
}

absl::Status S3Client::AbortUpload(const std::string& key, const std::string& upload) {
  absl::Status status =
      Send({.method = "DELETE", .key = key, .query = {{"uploadId", upload}}}).status();
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::StatusOr<std::vector<S3Upload>> S3Client::ListUploads(const std::string& prefix) {
  Call call{.method = "GET", .is_of_bucket = true};
  call.query = {{"uploads", ""}, {"prefix", absl::StrCat(location_.prefix, prefix)}};
  LWQ_ASSIGN_OR_RETURN(const HttpAnswer answer, Send(call));
  std::vector<S3Upload> uploads;
  for (absl::string_view entry : XmlElements(answer.body, "Upload")) {
    uploads.push_back({std::string(absl::StripPrefix(XmlText(entry, "Key"), location_.prefix)),
                       XmlText(entry, "UploadId"), ParseTime(XmlText(entry, "Initiated"))});
  }
  return uploads;
}

}  // namespace lwq
