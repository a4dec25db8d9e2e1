#include "server/store/data_directory.h"

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/store/sqlite_store.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;

TEST(DataDirectory, ARestoreAndAServerDoNotShareIt) {
  const TempDirectory directory = *TempDirectory::Create();
  {
    LWQ_ASSERT_OK_AND_ASSIGN(const auto lock, DirectoryLock::Take(directory.path()));
    EXPECT_THAT(SqliteStore::Open(directory.path()), FailsWith("STORE_LOCKED", _));
    EXPECT_FALSE(FileExists(JoinPath(directory.path(), "lwq.db")));
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const auto store, SqliteStore::Open(directory.path()));
  EXPECT_THAT(DirectoryLock::Take(directory.path()), FailsWith("STORE_LOCKED", _));
}

TEST(DataDirectory, NoServerStartsWhereARestoreWasStopped) {
  const TempDirectory directory = *TempDirectory::Create();
  ASSERT_OK(MakeDirectories(JoinPath(directory.path(), "restoring")));
  EXPECT_THAT(SqliteStore::Open(directory.path()),
              FailsWith("STORE_CORRUPT", HasSubstr("remove the directory and restore again")));
  EXPECT_FALSE(FileExists(JoinPath(directory.path(), "lwq.db")));
}

}  // namespace
}  // namespace lwq::testing
