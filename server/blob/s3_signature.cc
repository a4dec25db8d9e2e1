#include "server/blob/s3_signature.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/hash.h"

namespace lwq {
namespace {

constexpr char kAlgorithm[] = "AWS4-HMAC-SHA256";

std::string CanonicalQuery(const std::map<std::string, std::string>& query) {
  return absl::StrJoin(query, "&", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, UriEscape(entry.first, false), "=", UriEscape(entry.second, false));
  });
}

}  // namespace

std::string UriEscape(absl::string_view text, bool keep_slash) {
  std::string escaped;
  for (char c : text) {
    if (absl::ascii_isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~' ||
        (c == '/' && keep_slash)) {
      escaped += c;
    } else {
      absl::StrAppendFormat(&escaped, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  return escaped;
}

std::string SignedUrl(absl::string_view method, const S3Target& target, const S3Headers& headers,
                      const S3Credentials& credentials, absl::string_view region, absl::Time now,
                      absl::Duration life) {
  const std::string time = absl::FormatTime("%Y%m%dT%H%M%SZ", now, absl::UTCTimeZone());
  const std::string date = time.substr(0, 8);
  const std::string scope = absl::StrCat(date, "/", region, "/s3/aws4_request");
  S3Headers all = headers;
  all["host"] = target.host;
  const std::string signed_headers =
      absl::StrJoin(all, ";", [](std::string* out, const auto& h) { *out += h.first; });
  std::map<std::string, std::string> query = target.query;
  query["X-Amz-Algorithm"] = kAlgorithm;
  query["X-Amz-Credential"] = absl::StrCat(credentials.key_id, "/", scope);
  query["X-Amz-Date"] = time;
  query["X-Amz-Expires"] = absl::StrCat(absl::ToInt64Seconds(life));
  query["X-Amz-SignedHeaders"] = signed_headers;
  if (!credentials.session_token.empty()) {
    query["X-Amz-Security-Token"] = credentials.session_token;
  }

  const std::string path = UriEscape(target.path, true);
  std::string canonical = absl::StrCat(method, "\n", path, "\n", CanonicalQuery(query), "\n");
  for (const auto& [name, value] : all) {
    absl::StrAppend(&canonical, name, ":", absl::StripAsciiWhitespace(value), "\n");
  }
  absl::StrAppend(&canonical, "\n", signed_headers, "\nUNSIGNED-PAYLOAD");
  const std::string to_sign =
      absl::StrCat(kAlgorithm, "\n", time, "\n", scope, "\n", Sha256Hex(canonical));
  std::string key = HmacSha256(absl::StrCat("AWS4", credentials.secret), date);
  for (absl::string_view part :
       {region, absl::string_view("s3"), absl::string_view("aws4_request")}) {
    key = HmacSha256(key, part);
  }
  return absl::StrCat(target.scheme, "://", target.host, path, "?", CanonicalQuery(query),
                      "&X-Amz-Signature=", absl::BytesToHexString(HmacSha256(key, to_sign)));
}

}  // namespace lwq
