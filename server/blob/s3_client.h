// The requests of S3 that the blob store makes, on one bucket. Written against the Amazon S3 API
// reference (2006-03-01); moto, MinIO and Ceph speak the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "server/blob/http_client.h"
#include "server/blob/s3_signature.h"

namespace lwq {

struct S3Location {
  std::string scheme;
  std::string host;
  std::string bucket;
  std::string prefix;  // of every key; empty, or ends with '/'
  std::string region;
  bool is_path_style = false;  // the bucket stands in the path, not in the host name
};

// s3://BUCKET/PREFIX, with ?endpoint=http://host:port (else Amazon's), &region=R (else us-east-1).
// INVALID_ARGUMENT "BLOB_URL_INVALID".
absl::StatusOr<S3Location> ParseS3Url(const std::string& url);
// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. FAILED_PRECONDITION "BLOB_DENIED".
absl::StatusOr<S3Credentials> S3CredentialsFromEnvironment();

struct S3Object {
  std::string key;  // without the prefix
  int64_t size_bytes = 0;
  absl::Time written;
};
struct S3Upload {
  std::string key, id;
  absl::Time started;
};
struct S3Part {
  std::string etag;
  std::string checksum;  // base64 of its SHA-256
};

// Thread-safe. Keys are without the prefix. Every request is tried up to six times, with growing
// pauses, for as long as another try may help. Errors: NOT_FOUND; FAILED_PRECONDITION "BLOB_DENIED"
// for wrong credentials or rights; RESOURCE_EXHAUSTED "STORAGE_FULL"; UNAVAILABLE "BLOB_IO".
class S3Client {
 public:
  // `clock` outlives it.
  S3Client(S3Location location, S3Credentials credentials, Clock* clock)
      : location_(std::move(location)), credentials_(std::move(credentials)), clock_(clock) {}

  // Whether the bucket is there and may be used.
  absl::Status CheckBucket();
  absl::StatusOr<S3Object> Head(const std::string& key);
  // [offset, offset + size), which must be in the object.
  absl::StatusOr<std::string> Get(const std::string& key, int64_t offset, int64_t size);
  // `checksum`, the base64 of the body's SHA-256, is checked by S3.
  absl::Status Put(const std::string& key, absl::string_view body, const std::string& checksum);
  absl::Status Delete(const std::string& key);
  // At most 1,000 objects whose keys begin with `prefix` and are greater than `after`, sorted.
  absl::StatusOr<std::vector<S3Object>> List(const std::string& prefix, const std::string& after,
                                             int limit);

  absl::StatusOr<std::string> StartUpload(const std::string& key);
  absl::StatusOr<S3Part> PutPart(const std::string& key, const std::string& upload, int number,
                                 absl::string_view body);
  absl::Status FinishUpload(const std::string& key, const std::string& upload,
                            const std::vector<S3Part>& parts);
  // No error when it is not there.
  absl::Status AbortUpload(const std::string& key, const std::string& upload);
  // Unfinished uploads of keys that begin with `prefix`; at most 1,000.
  absl::StatusOr<std::vector<S3Upload>> ListUploads(const std::string& prefix);

  // A URL for one request by whoever gets it.
  std::string Sign(absl::string_view method, const std::string& key, const S3Headers& headers,
                   absl::Duration life);

 private:
  struct Call {
    std::string method;
    std::string key;
    std::map<std::string, std::string> query;
    S3Headers headers;
    absl::string_view body;
    int64_t max_answer_bytes = int64_t{4} << 20;
    bool is_of_bucket = false;  // not of an object
  };
  absl::StatusOr<HttpAnswer> Send(const Call& call);
  S3Target TargetOf(const Call& call) const;
  absl::Status ErrorOf(const Call& call, const HttpAnswer& answer) const;

  const S3Location location_;
  const S3Credentials credentials_;
  Clock* const clock_;
  HttpClient http_;
};

// Base64 of the SHA-256 of `bytes`, as S3 wants it.
std::string S3Checksum(absl::string_view bytes);

}  // namespace lwq
