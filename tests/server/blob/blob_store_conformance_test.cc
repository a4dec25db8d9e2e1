#include "tests/server/blob/blob_store_conformance.h"

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/testing/failing_blob_store.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::ElementsAre;

// Not a multiple of anything that a store may cut by, and different at every place.
std::string Content(int size) {
  std::string content;
  for (int i = 0; static_cast<int>(content.size()) < size; ++i) absl::StrAppend(&content, i, ",");
  content.resize(size);
  return content;
}

absl::StatusOr<std::string> ReadAll(BlobStore& blobs, const BlobId& id, int64_t step) {
  LWQ_ASSIGN_OR_RETURN(auto reader, blobs.OpenRead(id));
  std::string all;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const std::string bytes,
                         reader->Read(static_cast<int64_t>(all.size()), step));
    if (bytes.empty()) return all;
    all += bytes;
  }
}

absl::Status Upload(BlobStore& blobs, const BlobId& id, const std::string& content) {
  LWQ_ASSIGN_OR_RETURN(auto writer, blobs.OpenWrite(id));
  LWQ_RETURN_IF_ERROR(writer->Append(content.substr(writer->committed_bytes())));
  return writer->Finish();
}

TEST_P(BlobStoreConformance, AnyRangeOfWhatWasPutIsReadBack) {
  const std::string content = "the quick brown fox";
  LWQ_ASSERT_OK_AND_ASSIGN(BlobId id, blobs().Put(content));
  EXPECT_EQ(id, BlobIdOf(content));
  LWQ_ASSERT_OK_AND_ASSIGN(auto reader, blobs().OpenRead(id));
  EXPECT_EQ(reader->size_bytes(), 19);
  EXPECT_EQ(*reader->Read(0, 100), content);
  EXPECT_EQ(*reader->Read(4, 5), "quick");
  EXPECT_EQ(*reader->Read(19, 5), "");
  EXPECT_EQ(*reader->Read(INT64_MAX, INT64_MAX), "");
  EXPECT_EQ(*ReadAll(blobs(), id, 7), content);
}

TEST_P(BlobStoreConformance, AnEmptyBlobIsABlob) {
  LWQ_ASSERT_OK_AND_ASSIGN(BlobId id, blobs().Put(""));
  EXPECT_TRUE(*blobs().Has(id));
  EXPECT_EQ(*ReadAll(blobs(), id, 10), "");
}

TEST_P(BlobStoreConformance, MissingAndFailedAreDifferentErrors) {
  const BlobId absent = BlobIdOf("absent");
  EXPECT_THAT(blobs().OpenRead(absent), FailsWith("BLOB_MISSING", _));
  LWQ_ASSERT_OK_AND_ASSIGN(bool there, blobs().Has(absent));
  EXPECT_FALSE(there);
  EXPECT_THAT(blobs().Has({"../../etc/passwd", 3}), FailsWith("DIGEST_INVALID", _));
  EXPECT_THAT(blobs().OpenWrite({absent.sha256, -1}), FailsWith("DIGEST_INVALID", _));
}

TEST_P(BlobStoreConformance, ACallerThatIsWrongAboutTheSizeDoesNotCostTheBlob) {
  LWQ_ASSERT_OK_AND_ASSIGN(BlobId id, blobs().Put("content"));
  BlobId wrong = id;
  wrong.size_bytes = 6;
  EXPECT_FALSE(*blobs().Has(wrong));
  EXPECT_THAT(blobs().OpenRead(wrong), FailsWith("BLOB_CORRUPT", _));
  EXPECT_EQ(*ReadAll(blobs(), id, 100), "content");
  EXPECT_EQ(blobs().num_corrupt(), 0);
}

TEST_P(BlobStoreConformance, FindMissingAnswersForManyInTheirOrder) {
  LWQ_ASSERT_OK_AND_ASSIGN(BlobId there, blobs().Put("there"));
  const BlobId a = BlobIdOf("a"), b = BlobIdOf("b");
  LWQ_ASSERT_OK_AND_ASSIGN(auto missing, blobs().FindMissing({b, there, a}));
  EXPECT_THAT(missing, ElementsAre(b, a));
}

TEST_P(BlobStoreConformance, AnUploadCutShortIsNeverSeenAndGoesOnWhereItStopped) {
  const std::string content = Content(100'000);
  const BlobId id = BlobIdOf(content);
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs().OpenWrite(id));
    ASSERT_OK(writer->Append(content.substr(0, 60'000)));
    EXPECT_THAT(blobs().OpenWrite(id), FailsWith("UPLOAD_BUSY", _));
  }
  medium_->Reopen();
  EXPECT_FALSE(*blobs().Has(id));
  EXPECT_THAT(blobs().OpenRead(id), FailsWith("BLOB_MISSING", _));
  LWQ_ASSERT_OK_AND_ASSIGN(const int64_t uploaded, blobs().UploadedBytes(id));
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs().OpenWrite(id));
  EXPECT_EQ(writer->committed_bytes(), uploaded);
  ASSERT_OK(writer->Append(content.substr(uploaded)));
  EXPECT_FALSE(*blobs().Has(id));
  ASSERT_OK(writer->Finish());
  EXPECT_TRUE(*blobs().Has(id));
  writer.reset();
  medium_->Reopen();
  EXPECT_EQ(*ReadAll(blobs(), id, 4096), content);
}

TEST_P(BlobStoreConformance, ContentThatIsNotWhatItIsCalledIsDropped) {
  const BlobId id = BlobIdOf("right");
  EXPECT_THAT(Upload(blobs(), id, "wrong"), FailsWith("DIGEST_MISMATCH", _));
  EXPECT_THAT(Upload(blobs(), id, "righ"), FailsWith("DIGEST_MISMATCH", _));
  EXPECT_THAT(Upload(blobs(), id, "right and more"), FailsWith("SIZE_EXCEEDED", _));
  EXPECT_FALSE(*blobs().Has(id));
  EXPECT_EQ(*blobs().UploadedBytes(id), 0);
  EXPECT_OK(Upload(blobs(), id, "right"));
}

TEST_P(BlobStoreConformance, AnEndedUploadTakesNothingMore) {
  const BlobId id = BlobIdOf("right");
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs().OpenWrite(id));
  ASSERT_OK(writer->Append("wrong"));
  EXPECT_THAT(writer->Finish(), FailsWith("DIGEST_MISMATCH", _));
  EXPECT_THAT(writer->Append("right"), FailsWith("UPLOAD_ENDED", _));
  EXPECT_THAT(writer->Finish(), FailsWith("UPLOAD_ENDED", _));
  EXPECT_FALSE(*blobs().Has(id));
}

TEST_P(BlobStoreConformance, AWrongBitIsFoundBeforeTheLastByteAndTheBlobCanBeMadeAgain) {
  const std::string content = Content(10'000);
  LWQ_ASSERT_OK_AND_ASSIGN(const BlobId id, blobs().Put(content));
  for (int64_t offset : {0, 5'000, 9'999}) {
    medium_->FlipBit(id, offset);
    EXPECT_TRUE(*blobs().Has(id));  // nobody has looked
    LWQ_ASSERT_OK_AND_ASSIGN(auto reader, blobs().OpenRead(id));
    EXPECT_OK(reader->Read(0, 6'000));
    EXPECT_THAT(reader->Read(6'000, 6'000), FailsWith("BLOB_CORRUPT", _));
    EXPECT_THAT(reader->Read(0, 10), FailsWith("BLOB_CORRUPT", _));
    EXPECT_FALSE(*blobs().Has(id));
    EXPECT_THAT(blobs().OpenRead(id), FailsWith("BLOB_MISSING", _));
    ASSERT_OK(blobs().Put(content));
    EXPECT_EQ(*ReadAll(blobs(), id, 999), content);
  }
  EXPECT_EQ(blobs().num_corrupt(), 3);
}

TEST_P(BlobStoreConformance, PutMendsABlobThatIsWrong) {
  LWQ_ASSERT_OK_AND_ASSIGN(const BlobId id, blobs().Put("content"));
  medium_->FlipBit(id, 3);
  EXPECT_OK(blobs().Put("content"));
  EXPECT_EQ(*ReadAll(blobs(), id, 100), "content");
}

TEST_P(BlobStoreConformance, AReaderOfTheOldCopyDoesNotTakeTheNewOneAway) {
  const std::string content = Content(1'000);
  LWQ_ASSERT_OK_AND_ASSIGN(const BlobId id, blobs().Put(content));
  medium_->FlipBit(id, 7);
  LWQ_ASSERT_OK_AND_ASSIGN(auto old, blobs().OpenRead(id));
  ASSERT_OK(blobs().Put(content));
  old->Read(0, 10'000).status().IgnoreError();  // of the old copy, or already of the new
  EXPECT_EQ(*ReadAll(blobs(), id, 10'000), content);
}

TEST_P(BlobStoreConformance, UploadsWithoutAWriterExpire) {
  const std::string content = Content(70'000);
  const BlobId left = BlobIdOf(content), open = BlobIdOf("open");
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs().OpenWrite(left));
    ASSERT_OK(writer->Append(content.substr(0, 65'536)));
  }
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs().OpenWrite(open));
  ASSERT_OK(writer->Append("op"));
  EXPECT_EQ(*blobs().ExpireUploads(absl::Now() - absl::Hours(1)), 0);
  EXPECT_EQ(*blobs().ExpireUploads(absl::Now() + absl::Hours(1)), 1);
  EXPECT_EQ(*blobs().UploadedBytes(left), 0);
  ASSERT_OK(writer->Append("en"));
  EXPECT_OK(writer->Finish());
  EXPECT_OK(Upload(blobs(), left, content));
}

// What one owner has begun, another neither sees nor goes on with; the content is one in the end.
TEST_P(BlobStoreConformance, UploadsAreTheirOwners) {
  const std::string content = Content(100'000);
  const BlobId id = BlobIdOf(content);
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto first, blobs().OpenUpload(id, "acme"));
    ASSERT_OK(first->Append(content.substr(0, 70'000)));
    EXPECT_THAT(blobs().OpenUpload(id, "acme"), FailsWith("UPLOAD_BUSY", _));
    LWQ_ASSERT_OK_AND_ASSIGN(auto second, blobs().OpenUpload(id, "other"));
    EXPECT_EQ(second->committed_bytes(), 0);
    ASSERT_OK(second->Append("nothing of the kind"));
  }
  medium_->Reopen();
  LWQ_ASSERT_OK_AND_ASSIGN(const int64_t left, blobs().UploadedBytesOf(id, "acme"));
  EXPECT_GE(left, 0);
  EXPECT_EQ(*blobs().UploadedBytes(id), 0);
  LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<UploadStat> uploads, blobs().ListUploads());
  int64_t listed = 0;
  for (const UploadStat& upload : uploads) {
    EXPECT_EQ(upload.sha256, id.sha256);
    if (upload.owner == "acme") listed = upload.bytes;
  }
  EXPECT_EQ(listed, left);
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs().OpenUpload(id, "acme"));
  EXPECT_EQ(writer->committed_bytes(), left);
  ASSERT_OK(writer->Append(content.substr(left)));
  ASSERT_OK(writer->Finish());
  writer.reset();
  EXPECT_EQ(*blobs().UploadedBytesOf(id, "acme"), 0);
  // The other one sends what is there.
  EXPECT_OK(blobs().ExpireUploads(absl::Now() + absl::Hours(1)));
  EXPECT_EQ(*blobs().UploadedBytesOf(id, "other"), 0);
  LWQ_ASSERT_OK_AND_ASSIGN(auto again, blobs().OpenUpload(id, "other"));
  ASSERT_OK(again->Append(content));
  ASSERT_OK(again->Finish());
  again.reset();
  EXPECT_EQ(*ReadAll(blobs(), id, 4096), content);
  EXPECT_EQ(blobs().total_count(), 1);
  LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<UploadStat> none, blobs().ListUploads());
  EXPECT_EQ(none.size(), 0);
}

TEST_P(BlobStoreConformance, WritersReserveWhatTheyDeclared) {
  const int64_t capacity = medium_->capacity_bytes();
  if (capacity == 0) return;  // it takes what it is given
  const BlobId large{Sha256Hex("large"), capacity * 3 / 4};
  const BlobId other{Sha256Hex("other"), capacity / 2};
  EXPECT_THAT(blobs().OpenWrite({large.sha256, capacity + 1}), FailsWith("STORAGE_FULL", _));
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs().OpenWrite(large));
    EXPECT_THAT(blobs().OpenWrite(other), FailsWith("STORAGE_FULL", _));
    // What is written is no longer reserved besides: it must not count twice.
    ASSERT_OK(writer->Append(std::string(capacity / 2, 'x')));
    EXPECT_OK(blobs().OpenWrite({other.sha256, capacity / 8}));
  }
  // The writer has gone, what it wrote is there.
  EXPECT_THAT(blobs().OpenWrite({other.sha256, capacity * 5 / 8}), FailsWith("STORAGE_FULL", _));
  EXPECT_OK(blobs().OpenWrite({other.sha256, capacity * 3 / 8}));
}

TEST_P(BlobStoreConformance, ListsPageByDigestAndDeletedBlobsAreGone) {
  std::vector<std::string> digests;
  for (const char* content : {"a", "b", "c", "d", "e"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(BlobId id, blobs().Put(content));
    digests.push_back(id.sha256);
  }
  std::sort(digests.begin(), digests.end());
  std::vector<std::string> listed;
  std::string after;
  while (true) {
    LWQ_ASSERT_OK_AND_ASSIGN(auto page, blobs().List(after, 2));
    for (const BlobStat& blob : page) {
      EXPECT_EQ(blob.id.size_bytes, 1);
      EXPECT_LT(absl::AbsDuration(blob.written - absl::Now()), absl::Minutes(10));
      listed.push_back(blob.id.sha256);
    }
    if (page.size() < 2) break;
    after = page.back().id.sha256;
  }
  EXPECT_EQ(listed, digests);
  EXPECT_EQ(blobs().total_count(), 5);
  EXPECT_EQ(blobs().total_bytes(), 5);
  ASSERT_OK(blobs().Delete({digests[2], 1}));
  ASSERT_OK(blobs().Delete({digests[2], 1}));
  EXPECT_FALSE(*blobs().Has({digests[2], 1}));
  EXPECT_EQ(blobs().List("", 100)->size(), 4);
  EXPECT_EQ(blobs().total_count(), 4);
}

TEST_P(BlobStoreConformance, ManyThreadsPutAndReadTheSameBlobs) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < 8; ++i) {
        const std::string content = Content(1'000 + i);
        absl::Status put;
        do {
          put = blobs().Put(content).status();
        } while (ReasonOf(put) == "UPLOAD_BUSY");
        EXPECT_OK(put);
        EXPECT_EQ(*ReadAll(blobs(), BlobIdOf(content), 300), content);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(blobs().List("", 100)->size(), 8);
}

// Every call that stores a blob fails in turn, before or after it did its work: what is there is
// whole, and asking again gets there.
TEST_P(BlobStoreConformance, WhicheverCallFailsAskingAgainStoresTheBlob) {
  int most_calls = 0;
  for (Fault fault : {Fault::kBefore, Fault::kAfter}) {
    for (int n = 1;; ++n) {
      const std::string content = absl::StrCat(Content(5'000), n, static_cast<int>(fault));
      FaultPlan plan(FailNth(n, fault));
      FailingBlobStore failing(&blobs(), &plan);
      const bool stored = failing.Put(content).ok();
      if (stored && plan.num_faults() == 0) break;
      most_calls = std::max(most_calls, n);
      EXPECT_FALSE(stored);
      ASSERT_OK(failing.Put(content));
      EXPECT_EQ(*ReadAll(blobs(), BlobIdOf(content), 999), content);
    }
  }
  EXPECT_GE(most_calls, 4);  // looked for, opened, written, finished
}

}  // namespace
}  // namespace lwq::testing
