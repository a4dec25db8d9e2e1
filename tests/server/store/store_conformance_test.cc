// One suite for every store.
#include <functional>
#include <memory>

#include "base/file.h"
#include "gtest/gtest.h"
#include "server/store/memory_store.h"
#include "server/store/sqlite_store.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::_;
using ::testing::ElementsAre;

Write Put(const std::string& key, const std::string& value, int64_t order = 0, int state = 0,
          const std::string& tag = "") {
  Write write{.table = Table::kJobs};
  write.record.key = key;
  write.record.value = value;
  write.record.order = order;
  write.record.state = state;
  write.record.tag = tag;
  return write;
}

std::vector<std::string> Keys(const absl::StatusOr<std::vector<Record>>& rows) {
  std::vector<std::string> keys;
  EXPECT_OK(rows);
  if (!rows.ok()) return keys;
  for (const Record& row : *rows) keys.push_back(row.key);
  return keys;
}

class StoreConformance : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!GetParam()) {
      store_ = std::make_unique<MemoryStore>();
      return;
    }
    LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
    directory_ = std::make_unique<TempDirectory>(std::move(directory));
    LWQ_ASSERT_OK_AND_ASSIGN(store_, SqliteStore::Open(directory_->path()));
  }
  std::unique_ptr<TempDirectory> directory_;
  std::unique_ptr<Store> store_;
};

TEST_P(StoreConformance, ARecordIsReadBackWithItsColumnsAndItsVersionRises) {
  std::string binary("a\0b\xff", 4);
  ASSERT_OK(store_->Commit({Put("k", binary, 7, 3, "m")}));
  LWQ_ASSERT_OK_AND_ASSIGN(Record row, store_->Get(Table::kJobs, "k"));
  EXPECT_EQ(row.value, binary);
  EXPECT_EQ(row.order, 7);
  EXPECT_EQ(row.state, 3);
  EXPECT_EQ(row.tag, "m");
  EXPECT_EQ(row.version, 1);
  ASSERT_OK(store_->Commit({Put("k", "")}));
  LWQ_ASSERT_OK_AND_ASSIGN(row, store_->Get(Table::kJobs, "k"));
  EXPECT_EQ(row.value, "");
  EXPECT_EQ(row.version, 2);
  EXPECT_THAT(store_->Get(Table::kTasks, "k"), FailsWith("NOT_FOUND", _));
}

TEST_P(StoreConformance, ACommitIsAllOrNothing) {
  ASSERT_OK(store_->Commit({Put("there", "1")}));
  Write unique = Put("there", "2");
  unique.expected_version = 0;
  EXPECT_THAT(store_->Commit({Put("new", "1"), unique, Put("newer", "1")}),
              FailsWith("VERSION_CONFLICT", _));
  EXPECT_THAT(store_->Get(Table::kJobs, "new"), FailsWith("NOT_FOUND", _));
  EXPECT_THAT(Keys(store_->GetMany(Table::kJobs, {"new", "newer", "there"})), ElementsAre("there"));
}

TEST_P(StoreConformance, WritesOfOneCommitSeeEachOther) {
  Write first = Put("k", "1");
  first.expected_version = 0;
  Write second = Put("k", "2");
  second.expected_version = 1;
  ASSERT_OK(store_->Commit({first, second}));
  LWQ_ASSERT_OK_AND_ASSIGN(Record row, store_->Get(Table::kJobs, "k"));
  EXPECT_EQ(row.version, 2);
  EXPECT_EQ(row.value, "2");
}

TEST_P(StoreConformance, RemovedRecordsAreGoneAndRemovingTwiceIsNoError) {
  ASSERT_OK(store_->Commit({Put("k", "1")}));
  Write remove = Put("k", "");
  remove.remove = true;
  ASSERT_OK(store_->Commit({remove}));
  ASSERT_OK(store_->Commit({remove}));
  EXPECT_THAT(store_->Get(Table::kJobs, "k"), FailsWith("NOT_FOUND", _));
}

TEST_P(StoreConformance, ListsByPrefixGoOnAfterAKey) {
  ASSERT_OK(store_->Commit(
      {Put("jobs/a/1", ""), Put("jobs/a/2", ""), Put("jobs/a/3", ""), Put("jobs/ab/1", "")}));
  ListQuery query;
  query.key_prefix = "jobs/a/";
  EXPECT_THAT(Keys(store_->List(Table::kJobs, query)),
              ElementsAre("jobs/a/1", "jobs/a/2", "jobs/a/3"));
  query.after_key = "jobs/a/1";
  query.limit = 1;
  EXPECT_THAT(Keys(store_->List(Table::kJobs, query)), ElementsAre("jobs/a/2"));
}

TEST_P(StoreConformance, NewestFirstPagesNeitherRepeatNorHideRows) {
  ASSERT_OK(store_->Commit({Put("a", "", 1), Put("b", "", 3), Put("c", "", 3), Put("d", "", 2)}));
  ListQuery query;
  query.order = ListQuery::Order::kNewestFirst;
  query.limit = 2;
  EXPECT_THAT(Keys(store_->List(Table::kJobs, query)), ElementsAre("b", "c"));
  query.after_key = "b";
  query.after_order = 3;
  ASSERT_OK(store_->Commit({Put("e", "", 9)}));
  EXPECT_THAT(Keys(store_->List(Table::kJobs, query)), ElementsAre("c", "d"));
}

TEST_P(StoreConformance, ListsFilterByStateTagAndAge) {
  ASSERT_OK(
      store_->Commit({Put("a", "", 1, 1, "m"), Put("b", "", 2, 2, "m"), Put("c", "", 3, 2, "n")}));
  ListQuery query;
  query.state = 2;
  EXPECT_THAT(Keys(store_->List(Table::kJobs, query)), ElementsAre("b", "c"));
  query.tag = "m";
  EXPECT_THAT(Keys(store_->List(Table::kJobs, query)), ElementsAre("b"));
  query = {};
  query.order_at_least = 2;
  EXPECT_THAT(Keys(store_->List(Table::kJobs, query)), ElementsAre("b", "c"));
}

INSTANTIATE_TEST_SUITE_P(All, StoreConformance, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Sqlite" : "Memory"; });

TEST(SqliteStore, RecordsSurviveAReopenAndTwoServersDoNotShareADirectory) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto store, SqliteStore::Open(directory.path()));
    ASSERT_OK(store->Commit({Put("k", "v")}));
    EXPECT_THAT(SqliteStore::Open(directory.path()), FailsWith("STORE_LOCKED", _));
  }
  LWQ_ASSERT_OK_AND_ASSIGN(auto store, SqliteStore::Open(directory.path()));
  EXPECT_OK(store->Get(Table::kJobs, "k"));
}

TEST(SqliteStore, ADamagedFileIsRefusedAfterAnUncleanStop) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto store, SqliteStore::Open(directory.path()));
    for (int i = 0; i < 200; ++i) {
      ASSERT_OK(store->Commit({Put(std::to_string(i), std::string(500, 'x'))}));
    }
  }
  const std::string path = directory.path() + "/lwq.db";
  LWQ_ASSERT_OK_AND_ASSIGN(std::string content, ReadFile(path, 1 << 24));
  for (size_t i = 4096; i < content.size(); i += 64) content[i] ^= 0x55;
  ASSERT_OK(WriteFileAtomically(path, content));
  ASSERT_OK(WriteFileAtomically(directory.path() + "/open", "unclean"));
  EXPECT_THAT(SqliteStore::Open(directory.path()), FailsWith("STORE_CORRUPT", _));
}

}  // namespace
}  // namespace lwq
