// Signed URLs of S3 (AWS Signature Version 4 in the query): who holds one may do that one request
// until it expires. docs/decisions/0020-s3-by-signed-urls.md.
#pragma once

#include <map>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lwq {

struct S3Credentials {
  std::string key_id;
  std::string secret;
  std::string session_token;  // empty: none
};

// Names in lower case.
using S3Headers = std::map<std::string, std::string>;

struct S3Target {
  std::string scheme;  // "https"
  std::string host;    // with the port, unless it is the scheme's own
  std::string path;    // "/bucket/key", not escaped
  std::map<std::string, std::string> query;
};

// Everything but unreserved characters as %XX; '/' too, unless it is `kept`.
std::string UriEscape(absl::string_view text, bool keep_slash);

// The URL of a `method` request to `target`, signed at `now`, good for `life` (at most 7 days).
// `headers` are part of the signature: they have to be sent as they are here.
std::string SignedUrl(absl::string_view method, const S3Target& target, const S3Headers& headers,
                      const S3Credentials& credentials, absl::string_view region, absl::Time now,
                      absl::Duration life);

}  // namespace lwq
