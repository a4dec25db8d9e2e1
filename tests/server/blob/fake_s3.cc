#include "tests/server/blob/fake_s3.h"

#include <civetweb.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/hash.h"
#include "gtest/gtest.h"
#include "server/blob/s3_client.h"
#include "server/blob/s3_xml.h"

namespace lwq::testing {
namespace {

constexpr char kRegion[] = "us-east-1";

std::string Unescape(absl::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      plain += absl::HexStringToBytes(text.substr(i + 1, 2));
      i += 2;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::string ErrorBody(const std::string& code) {
  return absl::StrCat("<Error><Code>", code, "</Code><Message>of the fake</Message></Error>");
}

std::string IsoTime(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
}

}  // namespace

const S3Credentials& FakeS3::Credentials() {
  static const auto& credentials = *new S3Credentials{"fake-id", "fake-secret", "fake-token"};
  return credentials;
}

const std::string& FakeS3::Request::Header(const std::string& name) const {
  static const std::string& none = *new std::string;
  auto header = headers.find(name);
  return header == headers.end() ? none : header->second;
}

FakeS3& FakeS3::Fresh(FaultPlan* plan) {
  static FakeS3& s3 = *new FakeS3;
  MutexLock lock(&s3.mu_);
  s3.plan_ = plan;
  s3.objects_.clear();
  s3.uploads_.clear();
  return s3;
}

FakeS3::FakeS3() {
  const char* options[] = {"listening_ports",   "127.0.0.1:0", "num_threads", "20",
                           "enable_keep_alive", "no",          nullptr};
  mg_callbacks callbacks = {};
  context_ = mg_start(&callbacks, nullptr, options);
  EXPECT_NE(context_, nullptr);
  mg_set_request_handler(context_, "**", &FakeS3::Serve, this);
  mg_server_port port = {};
  mg_get_server_ports(context_, 1, &port);
  address_ = absl::StrCat("127.0.0.1:", port.port);
}

std::string FakeS3::Url(const std::string& prefix) const {
  return absl::StrCat("s3://", kBucket, "/", prefix, "?endpoint=http://", address_);
}

std::string FakeS3::Content(const std::string& key) const {
  MutexLock lock(&mu_);
  auto object = objects_.find(key);
  return object == objects_.end() ? "" : object->second.content;
}
void FakeS3::SetContent(const std::string& key, const std::string& content) {
  MutexLock lock(&mu_);
  objects_[key] = {content, absl::Now()};
}
int FakeS3::num_objects() const {
  MutexLock lock(&mu_);
  return static_cast<int>(objects_.size());
}
int FakeS3::num_uploads() const {
  MutexLock lock(&mu_);
  return static_cast<int>(uploads_.size());
}
FakeS3::Request FakeS3::ReadRequest(mg_connection* connection) const {
  const mg_request_info* info = mg_get_request_info(connection);
  Request request;
  request.method = info->request_method;
  request.key = std::string(absl::StripPrefix(info->local_uri, absl::StrCat("/", kBucket)));
  request.key = std::string(absl::StripPrefix(request.key, "/"));
  for (absl::string_view field :
       absl::StrSplit(info->query_string == nullptr ? "" : info->query_string, '&')) {
    const std::vector<std::string> parts = absl::StrSplit(field, absl::MaxSplits('=', 1));
    if (!parts[0].empty()) {
      request.query[Unescape(parts[0])] = parts.size() == 2 ? Unescape(parts[1]) : "";
    }
  }
  for (int i = 0; i < info->num_headers; ++i) {
    request.headers[absl::AsciiStrToLower(info->http_headers[i].name)] =
        info->http_headers[i].value;
  }
  char buffer[1 << 16];
  for (int64_t left = info->content_length; left > 0;) {
    const int size = mg_read(connection, buffer, std::min<int64_t>(left, sizeof buffer));
    if (size <= 0) break;
    request.body.append(buffer, static_cast<size_t>(size));
    left -= size;
  }
  return request;
}

bool FakeS3::IsSigned(const Request& request, const std::string& path) const {
  S3Target target{"http", request.Header("host"), path, request.query};
  const auto take = [&](const char* name) {
    const std::string value = target.query[name];
    target.query.erase(name);
    return value;
  };
  const std::string signature = take("X-Amz-Signature");
  const std::string names = take("X-Amz-SignedHeaders");
  absl::Time time;
  int life = 0;
  // Apart, because the parser would take all digits for the year.
  std::string date = take("X-Amz-Date");
  if (date.size() > 6) date.insert(6, "-").insert(4, "-");
  if (!absl::ParseTime("%Y-%m-%dT%H%M%SZ", date, &time, nullptr) ||
      !absl::SimpleAtoi(take("X-Amz-Expires"), &life) || absl::Now() > time + absl::Seconds(life)) {
    return false;
  }
  for (const char* name : {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Security-Token"})
    take(name);
  S3Headers headers;
  for (const std::string& name : absl::StrSplit(names, ';').operator std::vector<std::string>()) {
    if (name != "host") headers[name] = request.Header(name);
  }
  // Amazon wants all of these signed.
  for (const auto& [name, value] : request.headers) {
    if (absl::StartsWith(name, "x-amz-") && headers.count(name) == 0) return false;
  }
  const std::string url =
      SignedUrl(request.method, target, headers, Credentials(), kRegion, time, absl::Seconds(life));
  return absl::EndsWith(url, "X-Amz-Signature=" + signature);
}

int FakeS3::Serve(mg_connection* connection, void* self) {
  FakeS3& s3 = *static_cast<FakeS3*>(self);
  const Request request = s3.ReadRequest(connection);
  FaultPlan* plan = nullptr;
  {
    MutexLock lock(&s3.mu_);
    plan = s3.plan_;
  }
  const Fault fault = plan == nullptr ? Fault::kNone : plan->Next();
  Answer answer;
  if (!s3.IsSigned(request, mg_get_request_info(connection)->local_uri)) {
    answer = {403, ErrorBody("SignatureDoesNotMatch"), {}};
  } else if (fault == Fault::kBefore) {
    answer = {503, ErrorBody("SlowDown"), {}};
  } else {
    answer = s3.Do(request);
  }
  if (fault == Fault::kAfter) {
    MutexLock lock(&s3.mu_);
    if (++s3.num_cut_ % 2 == 0) return 500;  // no answer: the connection is closed
    answer = {500, ErrorBody("InternalError"), {}};
  }
  std::string text = absl::StrCat("HTTP/1.1 ", answer.code, " Fake\r\n");
  answer.headers.emplace("Content-Length", absl::StrCat(answer.body.size()));
  for (const auto& [name, value] : answer.headers)
    absl::StrAppend(&text, name, ": ", value, "\r\n");
  absl::StrAppend(&text, "\r\n", request.method == "HEAD" ? "" : answer.body);
  mg_write(connection, text.data(), text.size());
  return answer.code;
}

FakeS3::Answer FakeS3::Do(const Request& request) {
  MutexLock lock(&mu_);
  if (request.key.empty()) {
    if (request.method == "HEAD") return {};
    return request.query.count("uploads") ? ListUploads(request) : ListObjects(request);
  }
  if (request.query.count("uploads") || request.query.count("uploadId")) return OfUpload(request);
  return OfObject(request);
}

FakeS3::Answer FakeS3::OfObject(const Request& request) {
  if (request.method == "PUT") {
    const std::string& checksum = request.Header("x-amz-checksum-sha256");
    if (checksum != S3Checksum(request.body)) return {400, ErrorBody("BadDigest"), {}};
    objects_[request.key] = {request.body, absl::Now()};
    return {};
  }
  auto object = objects_.find(request.key);
  if (object == objects_.end()) return {404, ErrorBody("NoSuchKey"), {}};
  if (request.method == "DELETE") {
    objects_.erase(object);
    return {204, "", {}};
  }
  const std::string& content = object->second.content;
  Answer answer;
  answer.headers["Last-Modified"] =
      absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", object->second.written, absl::UTCTimeZone());
  if (request.method == "HEAD") {
    answer.headers["Content-Length"] = absl::StrCat(content.size());
    return answer;
  }
  std::vector<std::string> range =
      absl::StrSplit(absl::StripPrefix(request.Header("range"), "bytes="), '-');
  size_t first = 0, last = 0;
  if (range.size() != 2 || !absl::SimpleAtoi(range[0], &first) ||
      !absl::SimpleAtoi(range[1], &last) || first >= content.size() || last < first) {
    return {416, ErrorBody("InvalidRange"), {}};
  }
  answer.code = 206;
  answer.body = content.substr(first, last - first + 1);
  return answer;
}

FakeS3::Answer FakeS3::OfUpload(const Request& request) {
  if (request.query.count("uploads")) {
    if (request.Header("x-amz-checksum-algorithm") != "SHA256") {
      return {400, ErrorBody("InvalidRequest"), {}};
    }
    const std::string id = absl::StrCat("upload", ++num_uploads_begun_);
    uploads_[id] = {request.key, absl::Now(), {}};
    return {200, absl::StrCat("<R><UploadId>", id, "</UploadId></R>"), {}};
  }
  auto upload = uploads_.find(request.query.at("uploadId"));
  if (upload == uploads_.end() || upload->second.key != request.key) {
    return {404, ErrorBody("NoSuchUpload"), {}};
  }
  if (request.method == "DELETE") {
    uploads_.erase(upload);
    return {204, "", {}};
  }
  if (request.method == "POST") {
    Answer answer = Finish(request, upload->second);
    if (answer.code == 200) uploads_.erase(upload);
    return answer;
  }
  Part part{request.body, absl::StrCat("\"", Sha256Hex(request.body).substr(0, 8), "\""),
            request.Header("x-amz-checksum-sha256")};
  if (part.checksum != S3Checksum(part.content)) return {400, ErrorBody("BadDigest"), {}};
  int number = 0;
  if (!absl::SimpleAtoi(request.query.at("partNumber"), &number) || number < 1) {
    return {400, ErrorBody("InvalidArgument"), {}};
  }
  const std::string etag = part.etag;
  upload->second.parts[number] = std::move(part);
  return {200, "", {{"ETag", etag}}};
}

FakeS3::Answer FakeS3::Finish(const Request& request, Upload& upload) {
  std::string content;
  int number = 0;
  for (absl::string_view part : XmlElements(request.body, "Part")) {
    const Part& stored = upload.parts[++number];
    if (XmlText(part, "PartNumber") != absl::StrCat(number) ||
        XmlText(part, "ETag") != stored.etag ||
        XmlText(part, "ChecksumSHA256") != stored.checksum) {
      return {400, ErrorBody("InvalidPart"), {}};
    }
    content += stored.content;
  }
  if (number == 0) return {400, ErrorBody("MalformedXML"), {}};
  objects_[upload.key] = {std::move(content), absl::Now()};
  return {200, "<CompleteMultipartUploadResult/>", {}};
}

FakeS3::Answer FakeS3::ListObjects(const Request& request) {
  const std::string& prefix = request.query.at("prefix");
  auto after = request.query.find("start-after");
  int limit = 0;
  if (!absl::SimpleAtoi(request.query.at("max-keys"), &limit)) return {400, "", {}};
  std::string body = "<ListBucketResult>";
  for (const auto& [key, object] : objects_) {
    if (!absl::StartsWith(key, prefix) || limit == 0) continue;
    if (after != request.query.end() && key <= after->second) continue;
    absl::StrAppend(&body, "<Contents><Key>", key, "</Key><LastModified>", IsoTime(object.written),
                    "</LastModified><Size>", object.content.size(), "</Size></Contents>");
    --limit;
  }
  return {200, body + "</ListBucketResult>", {}};
}

FakeS3::Answer FakeS3::ListUploads(const Request& request) {
  std::string body = "<ListMultipartUploadsResult>";
  for (const auto& [id, upload] : uploads_) {
    if (!absl::StartsWith(upload.key, request.query.at("prefix"))) continue;
    absl::StrAppend(&body, "<Upload><Key>", upload.key, "</Key><UploadId>", id,
                    "</UploadId><Initiated>", IsoTime(upload.started), "</Initiated></Upload>");
  }
  return {200, body + "</ListMultipartUploadsResult>", {}};
}

}  // namespace lwq::testing
