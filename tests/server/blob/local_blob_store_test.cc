#include "server/blob/local_blob_store.h"

#include "base/file.h"
#include "tests/server/blob/blob_store_conformance.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

constexpr int64_t kCapacity = int64_t{1} << 20;

void FlipBitOfFile(const std::string& path, int64_t offset) {
  LWQ_ASSERT_OK_AND_ASSIGN(std::string content, ReadFile(path, kCapacity));
  content[static_cast<size_t>(offset)] ^= 1;
  ASSERT_OK(WriteFileAtomically(path, content));
}

class LocalMedium : public BlobMedium {
 public:
  static std::unique_ptr<BlobMedium> Make() {
    auto directory = TempDirectory::Create();
    EXPECT_OK(directory);
    return std::make_unique<LocalMedium>(*std::move(directory));
  }
  explicit LocalMedium(TempDirectory directory) : directory_(std::move(directory)) { Reopen(); }

  BlobStore& store() override { return *blobs_; }
  void Reopen() override {
    blobs_.reset();
    LocalBlobOptions options;
    options.min_free_share = 0;
    options.space = [this] { return DiskSpace{kCapacity, kCapacity - UsedBytes()}; };
    LWQ_ASSERT_OK_AND_ASSIGN(blobs_, LocalBlobStore::Open(directory_.path(), options));
  }
  void FlipBit(const BlobId& id, int64_t offset) override {
    FlipBitOfFile(blobs_->PathOf(id), offset);
  }
  int64_t capacity_bytes() const override { return kCapacity; }

 private:
  int64_t UsedBytes() const {
    int64_t used = blobs_->total_bytes();
    const std::string uploads = JoinPath(directory_.path(), "uploads");
    const auto names = ListDirectory(uploads);
    for (const std::string& name : *names) {
      used += FileSize(JoinPath(uploads, name)).value_or(0);
    }
    return used;
  }

  TempDirectory directory_;
  std::unique_ptr<LocalBlobStore> blobs_;
};

INSTANTIATE_TEST_SUITE_P(Local, BlobStoreConformance, ::testing::Values(&LocalMedium::Make));

class LocalBlobStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
    directory_ = std::make_unique<TempDirectory>(std::move(directory));
  }
  std::unique_ptr<TempDirectory> directory_;
};

// After a failed flush the kernel takes the lost pages for clean: a second flush would succeed over
// a hole. So every flush fails in turn, and after each the blob is absent, its upload is gone, and
// the same writer cannot finish.
TEST_F(LocalBlobStoreTest, NothingIsFinishedAfterAFlushThatFailed) {
  int failing = 0, calls = 0;
  LocalBlobOptions options;
  options.sync = [&](int) {
    errno = EIO;
    return ++calls == failing ? -1 : 0;
  };
  LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, LocalBlobStore::Open(directory_->path(), options));
  const BlobId id = BlobIdOf("content");
  for (failing = 1;; ++failing) {
    calls = 0;
    LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs->OpenWrite(id));
    EXPECT_EQ(writer->committed_bytes(), 0);
    ASSERT_OK(writer->Append("content"));
    absl::Status finished = writer->Finish();
    if (finished.ok()) break;
    EXPECT_THAT(finished, FailsWith("BLOB_IO", _));
    EXPECT_FALSE(*blobs->Has(id)) << "flush " << failing;
    EXPECT_EQ(*blobs->UploadedBytes(id), 0);
    EXPECT_THAT(writer->Finish(), FailsWith("UPLOAD_ENDED", _));
    EXPECT_EQ(blobs->total_count(), 0);
  }
  EXPECT_EQ(failing, 5);  // the file and three folders
  EXPECT_TRUE(*blobs->Has(id));
  EXPECT_EQ(blobs->total_bytes(), 7);
}

TEST_F(LocalBlobStoreTest, AWrongBlobIsKeptForPeopleToLookAt) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, LocalBlobStore::Open(directory_->path()));
  LWQ_ASSERT_OK_AND_ASSIGN(const BlobId id, blobs->Put("content"));
  FlipBitOfFile(blobs->PathOf(id), 0);
  LWQ_ASSERT_OK_AND_ASSIGN(auto reader, blobs->OpenRead(id));
  EXPECT_THAT(reader->Read(0, 100), FailsWith("BLOB_CORRUPT", _));
  EXPECT_EQ(*ReadFile(directory_->path() + "/quarantine/" + id.sha256, 100), "bontent");
  EXPECT_EQ(blobs->total_bytes(), 0);
}

TEST_F(LocalBlobStoreTest, ATruncatedBlobIsQuarantinedWhenItIsOpened) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, LocalBlobStore::Open(directory_->path()));
  LWQ_ASSERT_OK_AND_ASSIGN(const BlobId id, blobs->Put("content"));
  ASSERT_OK(WriteFileAtomically(blobs->PathOf(id), "cont"));
  EXPECT_THAT(blobs->OpenRead(id), FailsWith("BLOB_CORRUPT", _));
  EXPECT_THAT(blobs->OpenRead(id), FailsWith("BLOB_MISSING", _));
  EXPECT_EQ(blobs->num_corrupt(), 1);
}

// Servers that stand by share the folder.
TEST_F(LocalBlobStoreTest, AnUploadHasOneWriterAmongAllStoresOfTheFolder) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, LocalBlobStore::Open(directory_->path()));
  LWQ_ASSERT_OK_AND_ASSIGN(auto others, LocalBlobStore::Open(directory_->path()));
  const BlobId id = BlobIdOf("content");
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs->OpenWrite(id));
  EXPECT_THAT(others->OpenWrite(id), FailsWith("UPLOAD_BUSY", _));
  EXPECT_EQ(*others->ExpireUploads(absl::InfiniteFuture()), 0);
  writer.reset();
  EXPECT_OK(others->OpenWrite(id));
}

TEST_F(LocalBlobStoreTest, AnUploadLongerThanItsBlobStartsAgain) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, LocalBlobStore::Open(directory_->path()));
  const BlobId id = BlobIdOf("content");
  ASSERT_OK(WriteFileAtomically(directory_->path() + "/uploads/" + id.sha256, "content and more"));
  EXPECT_THAT(blobs->OpenWrite(id), FailsWith("SIZE_EXCEEDED", _));
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs->OpenWrite(id));
  EXPECT_EQ(writer->committed_bytes(), 0);
}

TEST_F(LocalBlobStoreTest, UploadsAreRefusedBeforeTheDiskIsFull) {
  LocalBlobOptions options;
  options.min_free_share = 1.0;
  options.min_free_bytes = INT64_MAX;
  LWQ_ASSERT_OK_AND_ASSIGN(auto full, LocalBlobStore::Open(directory_->path(), options));
  EXPECT_THAT(full->OpenWrite(BlobIdOf("x")), FailsWith("STORAGE_FULL", _));
}

}  // namespace
}  // namespace lwq::testing
