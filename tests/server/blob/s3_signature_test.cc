#include "server/blob/s3_signature.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lwq {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

const S3Credentials kExample = {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                ""};

// The example of "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)" in the
// Amazon S3 API reference.
TEST(S3SignatureTest, TheManualsExampleIsSignedAsInTheManual) {
  const S3Target target = {"https", "examplebucket.s3.amazonaws.com", "/test.txt", {}};
  EXPECT_EQ(SignedUrl("GET", target, {}, kExample, "us-east-1", absl::FromUnixSeconds(1369353600),
                      absl::Hours(24)),
            "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&"
            "X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&"
            "X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&"
            "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
}

TEST(S3SignatureTest, NamesAreEscapedAndHeadersAreNamed) {
  const S3Target target = {"http", "h:1", "/b/a b+\xc3\xa9", {{"uploads", ""}}};
  S3Credentials temporary = kExample;
  temporary.session_token = "a/b=";
  const std::string url = SignedUrl("PUT", target, {{"x-amz-checksum-sha256", "c2hh"}}, temporary,
                                    "eu-1", absl::UnixEpoch(), absl::Minutes(1));
  EXPECT_THAT(url, HasSubstr("http://h:1/b/a%20b%2B%C3%A9?X-Amz-Algorithm"));
  EXPECT_THAT(url, HasSubstr("X-Amz-Security-Token=a%2Fb%3D"));
  EXPECT_THAT(url, HasSubstr("X-Amz-SignedHeaders=host%3Bx-amz-checksum-sha256"));
  EXPECT_THAT(url, HasSubstr("&uploads=&X-Amz-Signature="));
}

}  // namespace
}  // namespace lwq
