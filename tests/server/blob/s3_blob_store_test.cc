#include "server/blob/s3_blob_store.h"

#include <functional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/blob/http_client.h"
#include "server/blob/s3_upload.h"
#include "tests/server/blob/blob_store_conformance.h"
#include "tests/server/blob/fake_s3.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kPart = 1 << 16;

absl::StatusOr<std::unique_ptr<S3BlobStore>> OpenOn(const FakeS3& s3) {
  S3BlobOptions options;
  LWQ_ASSIGN_OR_RETURN(options.location, ParseS3Url(s3.Url("some/prefix")));
  options.credentials = FakeS3::Credentials();
  options.part_bytes = kPart;
  return S3BlobStore::Open(options);
}

std::string KeyOf(const BlobId& id) { return "some/prefix/sha256/" + id.sha256; }

class FakeMedium : public BlobMedium {
 public:
  static std::unique_ptr<BlobMedium> Make() { return std::make_unique<FakeMedium>(); }
  FakeMedium() { Reopen(); }
  BlobStore& store() override { return *blobs_; }
  void Reopen() override { LWQ_ASSERT_OK_AND_ASSIGN(blobs_, OpenOn(s3_)); }
  void FlipBit(const BlobId& id, int64_t offset) override {
    std::string content = s3_.Content(KeyOf(id));
    content[static_cast<size_t>(offset)] ^= 1;
    s3_.SetContent(KeyOf(id), content);
  }
  int64_t capacity_bytes() const override { return 0; }

 private:
  FakeS3& s3_ = FakeS3::Fresh();
  std::unique_ptr<S3BlobStore> blobs_;
};

INSTANTIATE_TEST_SUITE_P(S3, BlobStoreConformance, ::testing::Values(&FakeMedium::Make));

std::string LargeContent(int num_parts_and_more) {
  std::string content;
  for (int i = 0; static_cast<int64_t>(content.size()) < num_parts_and_more * kPart + 777; ++i) {
    absl::StrAppend(&content, i, "/");
  }
  return content;
}

// In pieces, as a stream brings them.
absl::Status Upload(BlobStore& blobs, const std::string& content) {
  LWQ_ASSIGN_OR_RETURN(auto writer, blobs.OpenWrite(BlobIdOf(content)));
  while (writer->committed_bytes() < static_cast<int64_t>(content.size())) {
    LWQ_RETURN_IF_ERROR(writer->Append(content.substr(writer->committed_bytes(), 50'000)));
  }
  return writer->Finish();
}

TEST(S3BlobStoreTest, ALargeBlobGoesInPartsAndAppearsWhenItIsWhole) {
  FakeS3& s3 = FakeS3::Fresh();
  LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, OpenOn(s3));
  const std::string content = LargeContent(3);
  const BlobId id = BlobIdOf(content);
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs->OpenWrite(id));
  ASSERT_OK(writer->Append(content));
  EXPECT_EQ(s3.num_uploads(), 1);
  EXPECT_FALSE(*blobs->Has(id));
  ASSERT_OK(writer->Finish());
  EXPECT_TRUE(s3.Content(KeyOf(id)) == content);
  EXPECT_EQ(s3.num_uploads(), 0);
  EXPECT_EQ(s3.num_objects(), 1);  // what was kept of the upload is gone
}

TEST(S3BlobStoreTest, AnotherProcessGoesOnAfterTheLastWholePart) {
  FakeS3& s3 = FakeS3::Fresh();
  const std::string content = LargeContent(4);
  const BlobId id = BlobIdOf(content);
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, OpenOn(s3));
    LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs->OpenWrite(id));
    ASSERT_OK(writer->Append(content.substr(0, 2 * kPart + 100)));
  }
  LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, OpenOn(s3));
  EXPECT_EQ(*blobs->UploadedBytes(id), 2 * kPart);
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs->OpenWrite(id));
  EXPECT_EQ(writer->committed_bytes(), 2 * kPart);
  ASSERT_OK(writer->Append(content.substr(2 * kPart)));
  ASSERT_OK(writer->Finish());
  EXPECT_TRUE(s3.Content(KeyOf(id)) == content);
}

TEST(S3BlobStoreTest, AnUploadThatS3HasForgottenStartsAgain) {
  FakeS3& s3 = FakeS3::Fresh();
  LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, OpenOn(s3));
  const std::string content = LargeContent(2);
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs->OpenWrite(BlobIdOf(content)));
  ASSERT_OK(writer->Append(content.substr(0, kPart)));
  S3UploadState stale;
  stale.upload = "gone";
  stale.size_bytes = static_cast<int64_t>(content.size());
  stale.part_bytes = kPart;
  stale.hash = Sha256().Save();
  writer.reset();
  s3.SetContent("some/prefix/uploads/" + BlobIdOf(content).sha256, stale.ToText());
  EXPECT_THAT(Upload(*blobs, content), FailsWith("BLOB_IO", HasSubstr("start again")));
  EXPECT_OK(Upload(*blobs, content));
  // And so does one whose state is not one.
  for (const char* junk : {"", "x", "lwq-upload-1\nu\n1\n1\nhash\n"}) {
    const std::string other = LargeContent(2) + junk + "!";
    s3.SetContent("some/prefix/uploads/" + BlobIdOf(other).sha256, junk);
    EXPECT_OK(Upload(*blobs, other));
  }
}

// The network and S3 fail at each request in turn, before it was done or after: the store tries
// again by itself, and what it stores is right.
TEST(S3BlobStoreTest, WhicheverRequestFailsTheBlobIsStoredAndReadBack) {
  const std::string content = LargeContent(2);
  for (Fault fault : {Fault::kBefore, Fault::kAfter}) {
    int num_requests = 0;
    for (int n = 1;; ++n) {
      FaultPlan plan(FailNth(n, fault));
      FakeS3& s3 = FakeS3::Fresh(&plan);
      LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, OpenOn(s3));
      ASSERT_OK(Upload(*blobs, content)) << n;
      LWQ_ASSERT_OK_AND_ASSIGN(auto reader, blobs->OpenRead(BlobIdOf(content)));
      LWQ_ASSERT_OK_AND_ASSIGN(const std::string read, reader->Read(0, INT64_MAX));
      EXPECT_TRUE(read == content);
      EXPECT_EQ(s3.num_uploads(), fault == Fault::kAfter && n == 3 ? 1 : 0) << n;
      if (plan.num_faults() == 0) break;
      ++num_requests;
    }
    // Bucket, state, start, two parts with their states, the rest, end, state gone, look-up, read.
    EXPECT_EQ(num_requests, 12);
  }
}

TEST(S3BlobStoreTest, ManyFaultsInARowAreUnavailableAndNothingIsHalfThere) {
  FaultPlan plan(FailFrom(2, Fault::kBefore));
  FakeS3& s3 = FakeS3::Fresh(&plan);
  LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, OpenOn(s3));
  EXPECT_THAT(blobs->Put("content"), FailsWith("BLOB_IO", HasSubstr("503")));
  EXPECT_EQ(plan.num_faults(), 6);  // tries of one request
  EXPECT_EQ(s3.num_objects(), 0);
}

TEST(S3BlobStoreTest, WrongKeysAndNoBucketAreSaidAtTheStart) {
  FakeS3& s3 = FakeS3::Fresh();
  S3BlobOptions options;
  LWQ_ASSERT_OK_AND_ASSIGN(options.location, ParseS3Url(s3.Url("")));
  options.credentials = {"fake-id", "wrong", "fake-token"};
  EXPECT_THAT(S3BlobStore::Open(options), FailsWith("BLOB_DENIED", Not(HasSubstr("Signature="))));
  options.credentials = FakeS3::Credentials();
  options.location.host = "127.0.0.1:1";
  EXPECT_THAT(S3BlobStore::Open(options), FailsWith("BLOB_IO", Not(HasSubstr("Signature="))));
}

TEST(S3BlobStoreTest, WhoeverHoldsAGrantReadsOrWritesThatBlobAndNothingElse) {
  FakeS3& s3 = FakeS3::Fresh();
  LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, OpenOn(s3));
  const BlobId id = BlobIdOf("content");
  HttpClient http;
  const auto send = [&](const BlobGrant& grant, const std::string& method, const std::string& body,
                        const std::string& url) {
    auto answer = http.Send({method, url, grant.headers, body});
    EXPECT_OK(answer);
    return answer.ok() ? *answer : HttpAnswer();
  };
  const BlobGrant write = *blobs->GrantWrite(id, absl::Minutes(5));
  EXPECT_EQ(send(write, "PUT", "another", write.url).code, 400);
  EXPECT_FALSE(*blobs->Has(id));
  EXPECT_EQ(send(write, "PUT", "content", write.url).code, 200);
  EXPECT_TRUE(*blobs->Has(id));
  EXPECT_EQ(send(write, "DELETE", "", write.url).code, 403);
  const BlobGrant read = *blobs->GrantRead(id, absl::Minutes(5));
  BlobGrant ranged = read;
  ranged.headers["range"] = "bytes=0-6";
  EXPECT_EQ(send(ranged, "GET", "", read.url).body, "content");
  std::string other = read.url;
  other.replace(other.find(id.sha256), 64, Sha256Hex("other"));
  EXPECT_EQ(send(ranged, "GET", "", other).code, 403);
  const BlobGrant late = *blobs->GrantRead(id, absl::Seconds(-1));
  EXPECT_EQ(send(ranged, "GET", "", late.url).code, 403);
  EXPECT_FALSE(blobs->GrantWrite({id.sha256, int64_t{6} << 30}, absl::Minutes(5)).has_value());
}

TEST(S3UploadStateTest, ItsTextComesBackAndOtherTextDoesNot) {
  S3UploadState state;
  state.upload = "id";
  state.size_bytes = 200;
  state.part_bytes = 64;
  state.hash = Sha256().Save();
  state.parts = {{"\"etag\"", "c2hh"}, {"\"etag2\"", "c2hi"}};
  LWQ_ASSERT_OK_AND_ASSIGN(const S3UploadState back, S3UploadState::FromText(state.ToText()));
  EXPECT_EQ(back.ToText(), state.ToText());
  EXPECT_EQ(back.committed_bytes(), 128);
  const std::string text = state.ToText();
  for (size_t size = 0; size < text.size() - 40; size += 7) {
    S3UploadState::FromText(text.substr(0, size)).status().IgnoreError();  // no crash
  }
  state.size_bytes = 100;
  EXPECT_FALSE(S3UploadState::FromText(state.ToText()).ok());
}

}  // namespace
}  // namespace lwq::testing
