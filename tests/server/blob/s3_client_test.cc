#include "server/blob/s3_client.h"

#include "server/blob/s3_xml.h"
#include "tests/server/blob/fake_s3.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::ElementsAre;

TEST(S3ClientTest, AUrlNamesBucketPrefixAndPlace) {
  LWQ_ASSERT_OK_AND_ASSIGN(S3Location place, ParseS3Url("s3://models"));
  EXPECT_EQ(place.scheme, "https");
  EXPECT_EQ(place.host, "models.s3.us-east-1.amazonaws.com");
  EXPECT_EQ(place.prefix, "");
  EXPECT_FALSE(place.is_path_style);
  LWQ_ASSERT_OK_AND_ASSIGN(
      place, ParseS3Url("s3://b/lwq/blobs/?endpoint=http://minio:9000/&region=eu-central-1"));
  EXPECT_EQ(place.scheme, "http");
  EXPECT_EQ(place.host, "minio:9000");
  EXPECT_EQ(place.prefix, "lwq/blobs/");
  EXPECT_EQ(place.region, "eu-central-1");
  EXPECT_TRUE(place.is_path_style);
  for (const char* bad : {"s3://", "s3:///x", "http://b", "s3://b?endpoint=ftp://x",
                          "s3://b?endpoint=", "s3://b?color=red"}) {
    EXPECT_THAT(ParseS3Url(bad), FailsWith("BLOB_URL_INVALID", _)) << bad;
  }
}

TEST(S3ClientTest, XmlIsReadAsFarAsAnswersNeedIt) {
  const char* xml = "<R><C><K>a&amp;lt;&lt;</K></C><C><K>b</K></C><C><K>open</R>";
  EXPECT_THAT(XmlElements(xml, "C"), ElementsAre("<K>a&amp;lt;&lt;</K>", "<K>b</K>"));
  EXPECT_EQ(XmlText(xml, "K"), "a&lt;<");
  EXPECT_EQ(XmlText(xml, "Absent"), "");
  EXPECT_THAT(XmlElements("</K><K>", "K"), ElementsAre());
}

TEST(S3ClientTest, AnswersThatAreTooLongOrWrongAreErrors) {
  FakeS3& s3 = FakeS3::Fresh();
  LWQ_ASSERT_OK_AND_ASSIGN(const S3Location place, ParseS3Url(s3.Url("")));
  S3Client client(place, FakeS3::Credentials(), Clock::Real());
  ASSERT_OK(client.Put("k", "0123456789", S3Checksum("0123456789")));
  EXPECT_EQ(*client.Get("k", 2, 3), "234");
  EXPECT_THAT(client.Get("absent", 0, 1), FailsWith("NOT_FOUND", _));
  EXPECT_THAT(client.Put("k", "x", S3Checksum("y")), FailsWith("BLOB_IO", _));
  EXPECT_OK(client.Delete("absent"));
  EXPECT_OK(client.AbortUpload("k", "absent"));
  HttpClient http;
  HttpRequest request{"GET",
                      client.Sign("GET", "k", {{"range", "bytes=0-9"}}, absl::Minutes(1)),
                      {{"range", "bytes=0-9"}},
                      "",
                      9};
  EXPECT_THAT(http.Send(request), FailsWith("HTTP_FAILED", _));
  request.max_answer_bytes = 10;
  EXPECT_EQ(http.Send(request)->body, "0123456789");
}

}  // namespace
}  // namespace lwq::testing
