#include "server/blob/blob_store.h"

#include "base/file.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::_;

class BlobStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
    directory_ = std::make_unique<TempDirectory>(std::move(directory));
    Reopen();
  }
  void Reopen() {
    blobs_.reset();
    LWQ_ASSERT_OK_AND_ASSIGN(blobs_, BlobStore::Open(directory_->path()));
  }
  static BlobId IdOf(const std::string& content) {
    return {Sha256Hex(content), static_cast<int64_t>(content.size())};
  }
  std::unique_ptr<TempDirectory> directory_;
  std::unique_ptr<BlobStore> blobs_;
};

TEST_F(BlobStoreTest, AnyRangeOfWhatWasPutIsReadBack) {
  const std::string content = "the quick brown fox";
  LWQ_ASSERT_OK_AND_ASSIGN(BlobId id, blobs_->Put(content));
  LWQ_ASSERT_OK_AND_ASSIGN(auto reader, blobs_->OpenRead(id));
  EXPECT_EQ(*reader->Read(0, 100), content);
  EXPECT_EQ(*reader->Read(4, 5), "quick");
  EXPECT_EQ(*reader->Read(19, 5), "");
  EXPECT_EQ(blobs_->total_count(), 1);
}

TEST_F(BlobStoreTest, MissingAndFailedAreDifferentErrors) {
  EXPECT_THAT(blobs_->OpenRead(IdOf("absent")), FailsWith("BLOB_MISSING", _));
  LWQ_ASSERT_OK_AND_ASSIGN(bool there, blobs_->Has(IdOf("absent")));
  EXPECT_FALSE(there);
  LWQ_ASSERT_OK_AND_ASSIGN(BlobId id, blobs_->Put("content"));
  id.size_bytes = 6;
  EXPECT_THAT(blobs_->OpenRead(id), FailsWith("BLOB_CORRUPT", _));
  EXPECT_THAT(blobs_->Has({"../../etc/passwd", 3}), FailsWith("DIGEST_INVALID", _));
}

TEST_F(BlobStoreTest, AnUploadCutShortIsNeverSeenAndGoesOnWhereItStopped) {
  const std::string content = "first half, second half";
  const BlobId id = IdOf(content);
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs_->OpenWrite(id));
    ASSERT_OK(writer->Append(content.substr(0, 10)));
    EXPECT_THAT(blobs_->OpenWrite(id), FailsWith("UPLOAD_BUSY", _));
  }
  Reopen();  // as after a crash
  EXPECT_FALSE(*blobs_->Has(id));
  EXPECT_EQ(*blobs_->UploadedBytes(id), 10);
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs_->OpenWrite(id));
  EXPECT_EQ(writer->committed_bytes(), 10);
  ASSERT_OK(writer->Append(content.substr(10)));
  EXPECT_FALSE(*blobs_->Has(id));
  ASSERT_OK(writer->Finish());
  EXPECT_TRUE(*blobs_->Has(id));
  writer.reset();
  Reopen();
  EXPECT_EQ(blobs_->total_bytes(), id.size_bytes);
}

TEST_F(BlobStoreTest, ContentThatIsNotWhatItIsCalledIsDropped) {
  const BlobId id = IdOf("right");
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs_->OpenWrite(id));
    ASSERT_OK(writer->Append("wrong"));
    EXPECT_THAT(writer->Finish(), FailsWith("DIGEST_MISMATCH", _));
  }
  EXPECT_FALSE(*blobs_->Has(id));
  EXPECT_EQ(*blobs_->UploadedBytes(id), 0);
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs_->OpenWrite(id));
  EXPECT_THAT(writer->Append("right and more"), FailsWith("SIZE_EXCEEDED", _));
}

TEST_F(BlobStoreTest, UploadsAreRefusedBeforeTheDiskIsFull) {
  BlobStoreOptions options;
  options.min_free_share = 1.0;
  options.min_free_bytes = INT64_MAX;
  LWQ_ASSERT_OK_AND_ASSIGN(auto full, BlobStore::Open(directory_->path(), options));
  EXPECT_THAT(full->OpenWrite(IdOf("x")), FailsWith("STORAGE_FULL", _));
}

}  // namespace
}  // namespace lwq
