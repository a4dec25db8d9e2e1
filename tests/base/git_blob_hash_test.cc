#include "base/git_blob_hash.h"

#include "base/file.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

// What `git hash-object` prints of these.
TEST(GitBlobHashTest, IsGitsOwn) {
  EXPECT_EQ(GitBlobHash(""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
  EXPECT_EQ(GitBlobHash("test content\n"), "d670460b4b4aece5915caf5c68d12f560a9fe3e4");
}

TEST(GitBlobHashTest, OfAFile) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  const std::string path = JoinPath(directory.path(), "f");
  ASSERT_OK(WriteFileAtomically(path, "test content\n"));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string hash, GitBlobHashOfFile(path));
  EXPECT_EQ(hash, "d670460b4b4aece5915caf5c68d12f560a9fe3e4");
}

}  // namespace
}  // namespace lwq
