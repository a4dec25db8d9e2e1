#include "server/store/sqlite_snapshot.h"

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

TEST(SqliteSnapshot, IsAsOfOneMomentOfAStoreThatGoesOn) {
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
  EXPECT_THAT(copy->Get(Table::kJobs, "b"), FailsWith("NOT_FOUND", _));
  EXPECT_THAT(SnapshotSqlite(data, JoinPath(to, "lwq.db")), FailsWith("OUTPUT_EXISTS", _));
  EXPECT_THAT(SnapshotSqlite(directory.path(), JoinPath(to, "x")), FailsWith("NOT_FOUND", _));
}

}  // namespace
}  // namespace lwq::testing
