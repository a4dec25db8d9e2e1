#include "base/file.h"

#include <sys/stat.h>

#include "base/hash.h"
#include "base/thread_pool.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

TEST(FileTest, AtomicWriteReplacesTheWholeContent) {
  LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory dir, TempDirectory::Create());
  const std::string path = JoinPath(dir.path(), "a");
  ASSERT_OK(WriteFileAtomically(path, "first and longer"));
  ASSERT_OK(WriteFileAtomically(path, "second"));
  LWQ_ASSERT_OK_AND_ASSIGN(std::string content, ReadFile(path, 100));
  EXPECT_EQ(content, "second");
  LWQ_ASSERT_OK_AND_ASSIGN(auto names, ListDirectory(dir.path()));
  EXPECT_EQ(names.size(), 1u) << "a temporary file was left behind";
}

TEST(FileTest, ReadRefusesALargerFileThanAllowed) {
  LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory dir, TempDirectory::Create());
  const std::string path = JoinPath(dir.path(), "a");
  ASSERT_OK(WriteFileAtomically(path, "12345"));
  EXPECT_THAT(ReadFile(path, 4),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("at most 4")));
}

// Who could put a pipe into a model's directory would stop every worker for good.
TEST(FileTest, APipeIsRefusedAndNotWaitedFor) {
  LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory dir, TempDirectory::Create());
  const std::string path = JoinPath(dir.path(), "pipe");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_THAT(ReadFile(path, 100),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")));
  EXPECT_THAT(MappedFile::Open(path).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")));
}

TEST(FileTest, ReadOfAMissingFileIsNotFound) {
  EXPECT_THAT(ReadFile("/nonexistent/file", 4),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent/file")));
}

TEST(FileTest, PlainFileNamesHaveNoPathInThem) {
  EXPECT_TRUE(IsPlainFileName("model-00001-of-00002.safetensors"));
  for (const char* bad : {"", ".", "..", "a/b", "../a", "/a", "a\nb"}) {
    EXPECT_FALSE(IsPlainFileName(bad)) << bad;
  }
}

TEST(HashTest, EqualsTheStandardsVector) {
  // FIPS 180-2 appendix B.1.
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(ThreadPoolTest, RunsEachIndexExactlyOnce) {
  ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<int> hits(1000, 0);
    pool.ParallelFor(1000, [&](int64_t i) { ++hits[i]; });
    EXPECT_EQ(hits, std::vector<int>(1000, 1));
  }
}

TEST(ThreadPoolTest, NestedLoopsRunInline) {
  ThreadPool pool(2);
  std::vector<int> hits(64, 0);
  pool.ParallelFor(8,
                   [&](int64_t i) { pool.ParallelFor(8, [&](int64_t j) { ++hits[i * 8 + j]; }); });
  EXPECT_EQ(hits, std::vector<int>(64, 1));
}

}  // namespace
}  // namespace lwq
