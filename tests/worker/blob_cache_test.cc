#include "worker/blob_cache.h"

#include <sys/stat.h>
#include <utime.h>

#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/rpc/channel.h"
#include "gtest/gtest.h"
#include "tests/testing/simulated_clock.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/fake_services.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::ElementsAre;

class BlobCacheTest : public ::testing::Test {
 protected:
  BlobCacheTest()
      : directory_(*TempDirectory::Create()),
        server_(directory_.path()),
        cache_(*BlobCache::Open(JoinPath(directory_.path(), "cache"),
                                MakeChannel(server_.address()), int64_t{1} << 30)) {
    for (int64_t i = 0; i < 1'000'000; ++i) content_ += static_cast<char>(i * 7919 >> 3);
    server_.blobs.blobs[Sha256Hex(content_)] = content_;
  }
  std::string FetchedContent() {
    absl::StatusOr<std::string> path = cache_->Fetch(RefOf(content_));
    EXPECT_OK(path);
    return path.ok() ? ReadFile(*path, 1 << 30).value_or("") : "";
  }

  TempDirectory directory_;
  FakeServer server_;
  std::unique_ptr<BlobCache> cache_;
  std::string content_;
};

TEST_F(BlobCacheTest, AByteThatChangedInTheCacheIsNeverRead) {
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string path, cache_->Fetch(RefOf(content_)));
  ASSERT_OK(cache_->EndTask());
  std::string damaged = content_;
  damaged[500'000] ^= 1;
  ASSERT_OK(WriteFileAtomically(path, damaged));
  EXPECT_TRUE(FetchedContent() == content_);
  EXPECT_EQ(server_.blobs.read_offsets.size(), 2u);
}

TEST_F(BlobCacheTest, AGoodCopyIsNotFetchedAgain) {
  EXPECT_TRUE(FetchedContent() == content_);
  ASSERT_OK(cache_->EndTask());
  EXPECT_TRUE(FetchedContent() == content_);
  EXPECT_EQ(server_.blobs.read_offsets.size(), 1u);
}

TEST_F(BlobCacheTest, ADownloadThatIsCutGoesOnFromWhereItWas) {
  server_.blobs.cut_after = 150'000;  // seven calls: more than fail in a row
  EXPECT_TRUE(FetchedContent() == content_);
  EXPECT_EQ(server_.blobs.read_offsets.size(), 7u);
  EXPECT_EQ(server_.blobs.bytes_sent, static_cast<int64_t>(content_.size()));
}

TEST_F(BlobCacheTest, AnUploadThatIsCutGoesOnFromWhereItWas) {
  server_.blobs.blobs.clear();
  server_.blobs.cut_after = 200'000;
  const std::string path = JoinPath(cache_->ScratchDirectory(), "file");
  ASSERT_OK(WriteFileAtomically(path, content_));
  ASSERT_OK(cache_->Store(path, ""));
  EXPECT_TRUE(server_.blobs.blobs[Sha256Hex(content_)] == content_);
  EXPECT_THAT(server_.blobs.write_offsets, ElementsAre(0, 262'144, 524'288, 786'432));
}

// Whoever waits has waited at once.
class SkippingClock : public SimulatedClock {
 public:
  void SleepFor(absl::Duration duration) override { Advance(duration); }
};

TEST_F(BlobCacheTest, AnUploadWaitsForAServerThatIsFull) {
  SkippingClock clock;
  LWQ_ASSERT_OK_AND_ASSIGN(const auto cache,
                           BlobCache::Open(JoinPath(directory_.path(), "another"),
                                           MakeChannel(server_.address()), 1 << 30, &clock));
  server_.blobs.blobs.clear();
  server_.blobs.full_for = 20;  // more than fail in a row
  cache->BeginTask(nullptr);
  clock.Advance(absl::Minutes(2));  // what it took is worth as long a wait
  const std::string path = JoinPath(cache->ScratchDirectory(), "file");
  ASSERT_OK(WriteFileAtomically(path, content_));
  EXPECT_OK(cache->Store(path, ""));
  EXPECT_TRUE(server_.blobs.blobs[Sha256Hex(content_)] == content_);
}

TEST_F(BlobCacheTest, WhoeverAsksIsToldOfAServerThatIsFullAndWhenItIsNoMore) {
  SkippingClock clock;
  LWQ_ASSERT_OK_AND_ASSIGN(const auto cache,
                           BlobCache::Open(JoinPath(directory_.path(), "another"),
                                           MakeChannel(server_.address()), 1 << 30, &clock));
  std::vector<std::string> told;
  cache->BeginTask([&](const std::string& what) { told.push_back(what); });
  server_.blobs.blobs.clear();
  server_.blobs.full_for = 1;
  const std::string path = JoinPath(cache->ScratchDirectory(), "file");
  ASSERT_OK(WriteFileAtomically(path, content_));
  EXPECT_OK(cache->Store(path, ""));
  EXPECT_THAT(told, ElementsAre("the server's storage is full: the disk is full", ""));
}

// No longer than what is lost by it took to compute.
TEST_F(BlobCacheTest, AServerThatStaysFullFailsTheUploadByThatName) {
  SkippingClock clock;
  LWQ_ASSERT_OK_AND_ASSIGN(const auto cache,
                           BlobCache::Open(JoinPath(directory_.path(), "another"),
                                           MakeChannel(server_.address()), 1 << 30, &clock));
  server_.blobs.blobs.clear();
  server_.blobs.full_for = 1 << 20;
  const std::string path = JoinPath(cache->ScratchDirectory(), "file");
  ASSERT_OK(WriteFileAtomically(path, content_));
  for (const absl::Duration computed : {absl::Seconds(90), absl::Hours(1)}) {
    cache->BeginTask([](const std::string&) {});
    clock.Advance(computed);
    const absl::Duration begin = clock.Steady();
    EXPECT_THAT(cache->Store(path, ""), FailsWith("STORAGE_FULL", _));
    const absl::Duration waited = clock.Steady() - begin;
    // It looks every five seconds at most.
    EXPECT_GE(waited, std::min(computed, absl::Minutes(5)) - absl::Seconds(5));
    EXPECT_LE(waited, std::min(computed, absl::Minutes(5)) + absl::Seconds(5));
  }
}

// A cache of two and a half blobs.
TEST_F(BlobCacheTest, TheLongestUnusedBlobsGoAndNoneThatTheTaskReads) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto cache,
                           BlobCache::Open(JoinPath(directory_.path(), "small"),
                                           MakeChannel(server_.address()), 2'500'000));
  std::vector<std::string> contents, paths;
  for (char c : {'a', 'b', 'c', 'd'}) {
    contents.emplace_back(1'000'000, c);
    server_.blobs.blobs[Sha256Hex(contents.back())] = contents.back();
  }
  const auto fetch = [&](int i) {
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string path, cache->Fetch(RefOf(contents[i])));
    paths.resize(4);
    paths[i] = path;
  };
  for (int i : {0, 1}) {
    fetch(i);
    ASSERT_OK(cache->EndTask());
    absl::SleepFor(absl::Milliseconds(20));  // of the file system's times
  }
  fetch(0);  // used again
  fetch(2);
  EXPECT_TRUE(FileExists(paths[0]));
  EXPECT_FALSE(FileExists(paths[1])) << "the longest unused";
  fetch(3);
  for (int i : {0, 2, 3}) EXPECT_TRUE(FileExists(paths[i])) << "the task reads it";
  ASSERT_OK(cache->EndTask());
  EXPECT_EQ(FileExists(paths[0]) + FileExists(paths[2]) + FileExists(paths[3]), 2);
}

// Calibration stores many files, one after the other.
TEST_F(BlobCacheTest, WhatATaskStoresKeepsToTheCachesBytes) {
  const std::string directory = JoinPath(directory_.path(), "small");
  LWQ_ASSERT_OK_AND_ASSIGN(const auto cache,
                           BlobCache::Open(directory, MakeChannel(server_.address()), 3'000'000));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string input, cache->Fetch(RefOf(content_)));
  std::string last;
  for (char c = '0'; c <= '9'; ++c) {
    const std::string path = JoinPath(cache->ScratchDirectory(), "file");
    ASSERT_OK(WriteFileAtomically(path, std::string(1'000'000, c)));
    LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef blob, cache->Store(path, ""));
    last = JoinPath(directory, absl::StrCat("blobs/", blob.sha256()));
    LWQ_ASSERT_OK_AND_ASSIGN(const auto names, ListDirectory(JoinPath(directory, "blobs")));
    EXPECT_LE(names.size(), 3u);
    absl::SleepFor(absl::Milliseconds(20));  // of the file system's times
  }
  EXPECT_TRUE(FileExists(last)) << "the next step of the task may read it";
  EXPECT_TRUE(FileExists(input)) << "the task reads it";
}

// The server is who finds out whether it is right.
TEST_F(BlobCacheTest, AFileThatWasHashedWhileWrittenIsNotHashedAgain) {
  const std::string path = JoinPath(cache_->ScratchDirectory(), "file");
  ASSERT_OK(WriteFileAtomically(path, "some bytes"));
  const std::string digest = Sha256Hex("other bytes");
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef blob, cache_->Store(path, digest));
  EXPECT_EQ(blob.sha256(), digest);
  EXPECT_EQ(server_.blobs.blobs[digest], "some bytes");
}

struct stat StatOf(const std::string& path) {
  struct stat info = {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return info;
}

void MakeOld(const std::string& path) {
  const struct utimbuf long_ago = {1000, 1000};
  ASSERT_EQ(::utime(path.c_str(), &long_ago), 0);
}

ino_t InodeOf(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0 ? info.st_ino : 0;
}

// A server on the same disk: its files and the cache's are the same.
TEST_F(BlobCacheTest, WithAServerOfThisMachineFilesAreLinked) {
  const std::string blobs = JoinPath(directory_.path(), "blobs");
  const std::string digest = Sha256Hex(content_);
  const std::string folder =
      absl::StrCat(blobs, "/sha256/", digest.substr(0, 2), "/", digest.substr(2, 2));
  ASSERT_OK(MakeDirectories(folder));
  ASSERT_OK(MakeDirectories(JoinPath(blobs, "uploads")));
  cache_->ShareFilesWith(blobs);
  server_.blobs.uploads_directory = JoinPath(blobs, "uploads");

  ASSERT_OK(WriteFileAtomically(JoinPath(folder, digest), content_));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string fetched, cache_->Fetch(RefOf(content_)));
  EXPECT_EQ(InodeOf(fetched), InodeOf(JoinPath(folder, digest)));
  EXPECT_TRUE(server_.blobs.read_offsets.empty());

  const std::string path = JoinPath(cache_->ScratchDirectory(), "file");
  ASSERT_OK(WriteFileAtomically(path, "a task's result"));
  const ino_t inode = InodeOf(path);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef stored, cache_->Store(path, ""));
  EXPECT_EQ(InodeOf(JoinPath(blobs, "uploads/" + stored.sha256())), inode);
  EXPECT_EQ(server_.blobs.blobs[stored.sha256()], "a task's result");
  EXPECT_THAT(server_.blobs.write_offsets, ElementsAre(15)) << "no byte was sent";
}

// Whoever goes by a file's age, the collection there and the cache here, finds it used now.
TEST_F(BlobCacheTest, ALinkIsAsNewAsACopyWouldBe) {
  const std::string blobs = JoinPath(directory_.path(), "blobs");
  const std::string digest = Sha256Hex(content_);
  const std::string folder =
      absl::StrCat(blobs, "/sha256/", digest.substr(0, 2), "/", digest.substr(2, 2));
  ASSERT_OK(MakeDirectories(folder));
  ASSERT_OK(MakeDirectories(JoinPath(blobs, "uploads")));
  cache_->ShareFilesWith(blobs);
  server_.blobs.uploads_directory = JoinPath(blobs, "uploads");
  const time_t start = ::time(nullptr) - 1;

  ASSERT_OK(WriteFileAtomically(JoinPath(folder, digest), content_));
  MakeOld(JoinPath(folder, digest));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string fetched, cache_->Fetch(RefOf(content_)));
  EXPECT_EQ(InodeOf(fetched), InodeOf(JoinPath(folder, digest)));
  EXPECT_GE(StatOf(fetched).st_mtime, start);

  const std::string path = JoinPath(cache_->ScratchDirectory(), "file");
  ASSERT_OK(WriteFileAtomically(path, "a shard made long ago"));
  MakeOld(path);
  ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
  const ino_t inode = InodeOf(path);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef stored, cache_->Store(path, ""));
  const struct stat upload = StatOf(JoinPath(blobs, "uploads/" + stored.sha256()));
  EXPECT_EQ(upload.st_ino, inode);
  EXPECT_GE(upload.st_mtime, start);
  EXPECT_EQ(upload.st_mode & 0777, 0600u);
}

TEST_F(BlobCacheTest, WhatCannotBeLinkedIsCopied) {
  const std::string blobs = JoinPath(directory_.path(), "blobs");
  const std::string digest = Sha256Hex(content_);
  const std::string folder =
      absl::StrCat(blobs, "/sha256/", digest.substr(0, 2), "/", digest.substr(2, 2));
  ASSERT_OK(MakeDirectories(folder));
  cache_->ShareFilesWith(blobs);
  std::string damaged = content_;
  damaged[10] ^= 1;
  ASSERT_OK(WriteFileAtomically(JoinPath(folder, digest), damaged));
  EXPECT_TRUE(FetchedContent() == content_);
  EXPECT_EQ(server_.blobs.read_offsets.size(), 1u);
  const std::string path = JoinPath(cache_->ScratchDirectory(), "file");
  ASSERT_OK(WriteFileAtomically(path, "no folder of uploads"));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef stored, cache_->Store(path, ""));
  EXPECT_EQ(server_.blobs.blobs[stored.sha256()], "no folder of uploads");
}

TEST_F(BlobCacheTest, BytesOfAnotherDigestAreRefused) {
  server_.blobs.blobs[Sha256Hex(content_)][3] ^= 1;
  EXPECT_THAT(cache_->Fetch(RefOf(content_)), FailsWith("BLOB_CORRUPT", _));
}

TEST_F(BlobCacheTest, AServerThatSendsNothingIsGivenUp) {
  server_.blobs.cut_after = 0;
  EXPECT_FALSE(cache_->Fetch(RefOf(content_)).ok());
  EXPECT_EQ(server_.blobs.read_offsets.size(), 5u);
}

}  // namespace
}  // namespace lwq::testing
