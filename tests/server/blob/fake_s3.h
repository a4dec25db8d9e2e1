// An S3 in memory over HTTP on the loopback, strict about signatures, checksums and conditions of
// the protocol, whose requests fail as a FaultPlan says.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/blob/s3_signature.h"
#include "tests/testing/fault_plan.h"

struct mg_context;
struct mg_connection;

namespace lwq::testing {

class FakeS3 {
 public:
  static constexpr char kBucket[] = "bucket";
  static const S3Credentials& Credentials();

  // One for the process, because it takes seconds to end; empty, and with `plan`, which outlives
  // its use. Requests that fail get 503 before; after they were done 500, or their connection is
  // cut, by turns.
  static FakeS3& Fresh(FaultPlan* plan = nullptr);

  std::string address() const { return address_; }  // host:port
  // "s3://bucket/prefix?endpoint=..."
  std::string Url(const std::string& prefix) const;

  // What the bucket holds, past the protocol.
  std::string Content(const std::string& key) const;
  void SetContent(const std::string& key, const std::string& content);
  int num_objects() const;
  int num_uploads() const;

 private:
  struct Object {
    std::string content;
    absl::Time written;
  };
  struct Part {
    std::string content, etag, checksum;
  };
  struct Upload {
    std::string key;
    absl::Time started;
    std::map<int, Part> parts;
  };
  struct Request {
    std::string method, key, body;
    std::map<std::string, std::string> query, headers;
    const std::string& Header(const std::string& name) const;
  };
  struct Answer {
    int code = 200;
    std::string body;
    std::map<std::string, std::string> headers;
  };

  FakeS3();
  static int Serve(mg_connection* connection, void* self);
  Request ReadRequest(mg_connection* connection) const;
  // 403 unless the URL is signed for this very request.
  bool IsSigned(const Request& request, const std::string& path) const;
  Answer Do(const Request& request);
  Answer OfObject(const Request& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Answer OfUpload(const Request& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Answer Finish(const Request& request, Upload& upload) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Answer ListObjects(const Request& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Answer ListUploads(const Request& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mg_context* context_ = nullptr;
  std::string address_;
  mutable Mutex mu_;
  FaultPlan* plan_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::map<std::string, Object> objects_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Upload> uploads_ ABSL_GUARDED_BY(mu_);
  int num_uploads_begun_ ABSL_GUARDED_BY(mu_) = 0;
  int num_cut_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace lwq::testing
