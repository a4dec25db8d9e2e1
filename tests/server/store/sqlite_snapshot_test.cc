#include "server/store/sqlite_snapshot.h"

#include <sys/stat.h>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/store/sqlite_store.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

Write RowOf(const std::string& key) {
  Write write{.table = Table::kJobs};
  write.record.key = key;
  write.record.value = "v";
  return write;
}

mode_t ModeOf(const std::string& path) {
  struct stat info = {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 0777;
}

TEST(SqliteSnapshot, IsAsOfOneMomentOfAStoreThatGoesOn) {
  const mode_t before = ::umask(0);
  const TempDirectory directory = *TempDirectory::Create();
  const std::string data = JoinPath(directory.path(), "data"),
                    to = JoinPath(directory.path(), "to");
  LWQ_ASSERT_OK_AND_ASSIGN(const auto store, SqliteStore::Open(data));
  ASSERT_OK(store->Commit({RowOf("a")}));
  ASSERT_OK(MakeDirectories(to));
  ASSERT_OK(SnapshotSqlite(data, JoinPath(to, "lwq.db")));
  ASSERT_OK(store->Commit({RowOf("b")}));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto copy, SqliteStore::Open(to));
  EXPECT_OK(copy->Get(Table::kJobs, "a").status());
  // Of their owner alone, with what SQLite puts beside them.
  for (const std::string& file : {data + "/lwq.db", data + "/lwq.db-wal", to + "/lwq.db"}) {
    EXPECT_EQ(ModeOf(file), 0600u) << file;
  }
  EXPECT_EQ(ModeOf(data), 0700u);
  ::umask(before);
  EXPECT_THAT(copy->Get(Table::kJobs, "b"), FailsWith("NOT_FOUND", _));
  EXPECT_THAT(SnapshotSqlite(data, JoinPath(to, "lwq.db")), FailsWith("OUTPUT_EXISTS", _));
  EXPECT_THAT(SnapshotSqlite(directory.path(), JoinPath(to, "x")), FailsWith("FILE_NOT_FOUND", _));
}

}  // namespace
}  // namespace lwq::testing
