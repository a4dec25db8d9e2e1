#include "tests/server/store/store_conformance.h"

#include <atomic>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/testing/failing_store.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

std::vector<std::string> Keys(const absl::StatusOr<std::vector<Record>>& rows) {
  std::vector<std::string> keys;
  EXPECT_OK(rows);
  if (!rows.ok()) return keys;
  for (const Record& row : *rows) keys.push_back(row.key);
  return keys;
}

// The value of a row, or "" without one.
std::string ValueOf(Store& store, const std::string& key) {
  absl::StatusOr<Record> row = store.Get(Table::kJobs, key);
  if (row.ok()) return row->value;
  EXPECT_THAT(row, FailsWith("NOT_FOUND", _));
  return "";
}

TEST_P(StoreConformance, ARecordIsReadBackWithItsColumnsAndItsVersionRises) {
  std::string binary("a\0b\xff", 4);
  ASSERT_OK(store().Commit({PutRow("k", binary, 7, 3, "m")}));
  LWQ_ASSERT_OK_AND_ASSIGN(Record row, store().Get(Table::kJobs, "k"));
  EXPECT_EQ(row.key, "k");
  EXPECT_EQ(row.value, binary);
  EXPECT_EQ(row.order, 7);
  EXPECT_EQ(row.state, 3);
  EXPECT_EQ(row.tag, "m");
  EXPECT_EQ(row.version, 1);
  ASSERT_OK(store().Commit({PutRow("k", "", INT64_MIN, INT32_MIN)}));
  LWQ_ASSERT_OK_AND_ASSIGN(row, store().Get(Table::kJobs, "k"));
  EXPECT_EQ(row.value, "");
  EXPECT_EQ(row.tag, "");
  EXPECT_EQ(row.order, INT64_MIN);
  EXPECT_EQ(row.state, INT32_MIN);
  EXPECT_EQ(row.version, 2);
  EXPECT_THAT(store().Get(Table::kTasks, "k"), FailsWith("NOT_FOUND", _));
}

TEST_P(StoreConformance, LargeValuesAndOddKeysComeBack) {
  const std::string large(3'000'000, '\x5c');
  const std::string odd = "it's \"50%\"; \\ {x,y} \xc3\xa9 -- ";
  ASSERT_OK(store().Commit({PutRow(odd, large, 0, 0, odd)}));
  LWQ_ASSERT_OK_AND_ASSIGN(auto rows, store().GetMany(Table::kJobs, {odd, "absent", "it's"}));
  ASSERT_EQ(rows.size(), 1);
  EXPECT_EQ(rows[0].key, odd);
  EXPECT_TRUE(rows[0].value == large);
  EXPECT_EQ(rows[0].tag, odd);
  EXPECT_THAT(Keys(store().GetMany(Table::kJobs, {})), IsEmpty());
}

TEST_P(StoreConformance, EveryTableIsApart) {
  for (int t = 0; t < kNumTables; ++t) {
    Write write = PutRowAt("k", absl::StrCat(t), 0);
    write.table = static_cast<Table>(t);
    ASSERT_OK(store().Commit({write}));
  }
  for (int t = 0; t < kNumTables; ++t) {
    LWQ_ASSERT_OK_AND_ASSIGN(Record row, store().Get(static_cast<Table>(t), "k"));
    EXPECT_EQ(row.value, absl::StrCat(t));
  }
}

TEST_P(StoreConformance, ACommitIsAllOrNothing) {
  ASSERT_OK(store().Commit({PutRow("there", "1"), PutRow("old", "1")}));
  EXPECT_THAT(store().Commit({PutRow("new", "1"), RemoveRow("old"), PutRowAt("there", "2", 0),
                              PutRow("newer", "1")}),
              FailsWith("VERSION_CONFLICT", _));
  EXPECT_THAT(Keys(store().GetMany(Table::kJobs, {"new", "newer", "there", "old"})),
              UnorderedElementsAre("there", "old"));
  EXPECT_EQ(ValueOf(store(), "there"), "1");
}

TEST_P(StoreConformance, ALargeCommitIsOneToo) {
  std::vector<Write> writes;
  for (int i = 0; i < 500; ++i) writes.push_back(PutRow(absl::StrCat("k", i), "1"));
  writes.push_back(PutRowAt("k0", "2", 7));
  EXPECT_THAT(store().Commit(writes), FailsWith("VERSION_CONFLICT", _));
  EXPECT_THAT(Keys(store().List(Table::kJobs, {})), IsEmpty());
  writes.back() = PutRowAt("k0", "2", 1);
  ASSERT_OK(store().Commit(writes));
  EXPECT_EQ(Keys(store().List(Table::kJobs, {})).size(), 500);
  EXPECT_EQ(ValueOf(store(), "k0"), "2");
}

TEST_P(StoreConformance, EveryKindOfConditionHoldsOrRefuses) {
  ASSERT_OK(store().Commit({PutRow("k", "1")}));
  const auto remove_at = [](int64_t version) {
    Write write = RemoveRow("k");
    write.expected_version = version;
    return write;
  };
  for (int64_t wrong : {2, 17}) {
    EXPECT_THAT(store().Commit({PutRowAt("k", "x", wrong)}), FailsWith("VERSION_CONFLICT", _));
    EXPECT_THAT(store().Commit({remove_at(wrong)}), FailsWith("VERSION_CONFLICT", _));
    EXPECT_THAT(store().Commit({CheckRow("k", wrong)}), FailsWith("VERSION_CONFLICT", _));
    EXPECT_THAT(store().Commit({PutRowAt("absent", "x", wrong)}), FailsWith("VERSION_CONFLICT", _));
    EXPECT_THAT(store().Commit({CheckRow("absent", wrong)}), FailsWith("VERSION_CONFLICT", _));
  }
  EXPECT_EQ(ValueOf(store(), "k"), "1");
  ASSERT_OK(store().Commit({CheckRow("k", 1), PutRowAt("k", "2", 1), CheckRow("k", 2)}));
  EXPECT_EQ(ValueOf(store(), "k"), "2");
  ASSERT_OK(store().Commit({remove_at(2)}));
  ASSERT_OK(store().Commit({PutRowAt("k", "again", 0)}));
}

TEST_P(StoreConformance, ACheckWritesNothingAndRefusesTheRest) {
  ASSERT_OK(store().Commit({PutRow("term", "mine")}));
  ASSERT_OK(store().Commit({CheckRow("term", 1), PutRow("a", "1")}));
  LWQ_ASSERT_OK_AND_ASSIGN(Record term, store().Get(Table::kJobs, "term"));
  EXPECT_EQ(term.version, 1);
  EXPECT_EQ(term.value, "mine");
  ASSERT_OK(store().Commit({PutRow("term", "another's")}));
  EXPECT_THAT(store().Commit({CheckRow("term", 1), PutRow("a", "2")}),
              FailsWith("VERSION_CONFLICT", _));
  EXPECT_EQ(ValueOf(store(), "a"), "1");
}

TEST_P(StoreConformance, WhatNoStoreTakesIsRefusedBeforeAnythingIsWritten) {
  Write both = CheckRow("k", 1);
  both.remove = true;
  Write unconditional = CheckRow("k", 1);
  unconditional.expected_version.reset();
  Write remove_absent = RemoveRow("k");
  remove_absent.expected_version = 0;
  for (const Write& bad : {both, unconditional, remove_absent, CheckRow("k", 0)}) {
    EXPECT_THAT(store().Commit({PutRow("a", "1"), bad}), FailsWith("WRITE_INVALID", _));
  }
  EXPECT_EQ(ValueOf(store(), "a"), "");
  EXPECT_OK(store().Commit({}));
}

TEST_P(StoreConformance, WritesOfOneCommitSeeEachOther) {
  ASSERT_OK(store().Commit(
      {PutRowAt("k", "1", 0), PutRowAt("k", "2", 1), PutRow("gone", "1"), RemoveRow("gone")}));
  LWQ_ASSERT_OK_AND_ASSIGN(Record row, store().Get(Table::kJobs, "k"));
  EXPECT_EQ(row.version, 2);
  EXPECT_EQ(row.value, "2");
  EXPECT_EQ(ValueOf(store(), "gone"), "");
}

TEST_P(StoreConformance, RemovedRecordsAreGoneAndRemovingTwiceIsNoError) {
  ASSERT_OK(store().Commit({PutRow("k", "1")}));
  ASSERT_OK(store().Commit({RemoveRow("k")}));
  ASSERT_OK(store().Commit({RemoveRow("k")}));
  EXPECT_THAT(store().Get(Table::kJobs, "k"), FailsWith("NOT_FOUND", _));
}

TEST_P(StoreConformance, ListsByPrefixGoOnAfterAKey) {
  ASSERT_OK(store().Commit({PutRow("jobs/a/1", ""), PutRow("jobs/a/2", ""), PutRow("jobs/a/3", ""),
                            PutRow("jobs/a0", ""), PutRow("jobs/ab/1", ""),
                            PutRow("jobs/a/\xc3\xa9", "")}));
  ListQuery query;
  query.key_prefix = "jobs/a/";
  EXPECT_THAT(Keys(store().List(Table::kJobs, query)),
              ElementsAre("jobs/a/1", "jobs/a/2", "jobs/a/3", "jobs/a/\xc3\xa9"));
  query.after_key = "jobs/a/1";
  query.limit = 1;
  EXPECT_THAT(Keys(store().List(Table::kJobs, query)), ElementsAre("jobs/a/2"));
}

TEST_P(StoreConformance, KeysSortByTheirBytes) {
  ASSERT_OK(store().Commit({PutRow("b", ""), PutRow("B", ""), PutRow("a-1", ""), PutRow("a1", ""),
                            PutRow("\xc3\xa4", ""), PutRow("z", "")}));
  EXPECT_THAT(Keys(store().List(Table::kJobs, {})),
              ElementsAre("B", "a-1", "a1", "b", "z", "\xc3\xa4"));
}

TEST_P(StoreConformance, NewestFirstPagesNeitherRepeatNorHideRows) {
  ASSERT_OK(store().Commit(
      {PutRow("a", "", 1), PutRow("b", "", 3), PutRow("c", "", 3), PutRow("d", "", 2)}));
  ListQuery query;
  query.order = ListQuery::Order::kNewestFirst;
  query.limit = 2;
  EXPECT_THAT(Keys(store().List(Table::kJobs, query)), ElementsAre("b", "c"));
  query.after_key = "b";
  query.after_order = 3;
  ASSERT_OK(store().Commit({PutRow("e", "", 9)}));
  EXPECT_THAT(Keys(store().List(Table::kJobs, query)), ElementsAre("c", "d"));
}

TEST_P(StoreConformance, ListsFilterByStateTagAndAge) {
  ASSERT_OK(store().Commit(
      {PutRow("a", "", 1, 1, "m"), PutRow("b", "", 2, 2, "m"), PutRow("c", "", 3, 2, "n")}));
  ListQuery query;
  query.state = 2;
  EXPECT_THAT(Keys(store().List(Table::kJobs, query)), ElementsAre("b", "c"));
  query.tag = "m";
  EXPECT_THAT(Keys(store().List(Table::kJobs, query)), ElementsAre("b"));
  query = {};
  query.order_at_least = 2;
  EXPECT_THAT(Keys(store().List(Table::kJobs, query)), ElementsAre("b", "c"));
}

TEST_P(StoreConformance, RowsAreOfATenantAndListsOfSome) {
  const auto of = [](const char* key, int64_t order, const char* tenant) {
    Write write = PutRow(key, "", order);
    write.record.tenant = tenant;
    return write;
  };
  ASSERT_OK(store().Commit(
      {PutRow("a", "", 1), of("b", 2, "acme"), of("c", 3, "*"), of("d", 4, "acme")}));
  LWQ_ASSERT_OK_AND_ASSIGN(const Record row, store().Get(Table::kJobs, "a"));
  EXPECT_EQ(row.tenant, "default");
  ListQuery query;
  query.tenants = {"acme"};
  EXPECT_THAT(Keys(store().List(Table::kJobs, query)), ElementsAre("b", "d"));
  query.tenants = {"acme", "*"};
  query.order = ListQuery::Order::kNewestFirst;
  EXPECT_THAT(Keys(store().List(Table::kJobs, query)), ElementsAre("d", "c", "b"));
  query.after_key = "d";
  query.after_order = 4;
  EXPECT_THAT(Keys(store().List(Table::kJobs, query)), ElementsAre("c", "b"));
  // Written again it may be another's, at a version or whatever is there.
  ASSERT_OK(store().Commit({of("a", 1, "acme")}));
  Write moved = of("b", 2, "other");
  moved.expected_version = 1;
  ASSERT_OK(store().Commit({moved}));
  query = {};
  query.tenants = {"acme"};
  EXPECT_THAT(Keys(store().List(Table::kJobs, query)), ElementsAre("a", "d"));
}

TEST_P(StoreConformance, RecordsSurviveAReopenAndACrash) {
  for (int round = 0; round < 3; ++round) {
    ASSERT_OK(store().Commit({PutRowAt("k", absl::StrCat(round), round), PutRow("other", "1")}));
    if (round == 0) medium_->Reopen();
    if (round > 0) medium_->Crash();
    LWQ_ASSERT_OK_AND_ASSIGN(Record row, store().Get(Table::kJobs, "k"));
    EXPECT_EQ(row.value, absl::StrCat(round));
    EXPECT_EQ(row.version, round + 1);
  }
}

TEST_P(StoreConformance, OfManyWritersAtOnceOneWinsEachVersion) {
  ASSERT_OK(store().Commit({PutRow("k", "0")}));
  std::atomic<int> won{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 25;) {
        absl::StatusOr<Record> row = store().Get(Table::kJobs, "k");
        if (!row.ok()) {
          ADD_FAILURE() << row.status();
          return;
        }
        absl::Status status = store().Commit({PutRowAt("k", row->value + "+", row->version)});
        if (!status.ok() && ReasonOf(status) != "VERSION_CONFLICT") {
          ADD_FAILURE() << status;
          return;
        }
        if (!status.ok()) continue;
        ++won;
        ++i;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  LWQ_ASSERT_OK_AND_ASSIGN(Record row, store().Get(Table::kJobs, "k"));
  EXPECT_EQ(won, 100);
  EXPECT_EQ(row.version, 101);
  EXPECT_EQ(row.value.size(), 101);
}

// Writers that touch the same rows in different orders: none of them may hang or be lost.
TEST_P(StoreConformance, CommitsThatCrossEachOtherBothHappen) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 30; ++i) {
        std::vector<Write> writes = {PutRow("a", "x"), PutRow("b", "x")};
        if (t == 1) std::swap(writes[0], writes[1]);
        EXPECT_OK(store().Commit(writes));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store().Get(Table::kJobs, "a")->version, 60);
  EXPECT_EQ(store().Get(Table::kJobs, "b")->version, 60);
}

TEST_P(StoreConformance, ReadersSeeACommitWholeOrNotAtAll) {
  constexpr int kRounds = 60;
  ASSERT_OK(store().Commit({PutRow("a", "0"), PutRow("b", "0")}));
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&, t] {
      int last = 0;
      while (!stop) {
        auto rows =
            t == 0 ? store().List(Table::kJobs, {}) : store().GetMany(Table::kJobs, {"b", "a"});
        if (!rows.ok() || rows->size() != 2) {
          ADD_FAILURE() << rows.status();
          return;
        }
        EXPECT_EQ((*rows)[0].value, (*rows)[1].value);
        EXPECT_GE(std::stoi((*rows)[0].value), last);  // never back in time
        last = std::stoi((*rows)[0].value);
      }
    });
  }
  for (int i = 1; i <= kRounds; ++i) {
    EXPECT_OK(store().Commit({PutRow("a", absl::StrCat(i)), PutRow("b", absl::StrCat(i))}));
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
}

// Every call fails in turn, before and after it was done: what is there is a whole commit, and a
// caller that reads again knows which.
TEST_P(StoreConformance, AfterAnyFaultACommitIsThereWholeOrNotAtAll) {
  for (Fault fault : {Fault::kBefore, Fault::kAfter}) {
    FaultPlan plan(FailNth(1, fault));
    FailingStore failing(&store(), &plan);
    const std::string key = absl::StrCat("k", static_cast<int>(fault));
    absl::Status status = failing.Commit({PutRowAt(key, "1", 0), PutRowAt(key + "b", "1", 0)});
    EXPECT_EQ(ReasonOf(status), fault == Fault::kBefore ? "STORE_UNAVAILABLE" : "STORE_UNCERTAIN");
    LWQ_ASSERT_OK_AND_ASSIGN(auto rows, failing.GetMany(Table::kJobs, {key, key + "b"}));
    EXPECT_EQ(rows.size(), fault == Fault::kBefore ? 0 : 2);
    EXPECT_EQ(plan.num_faults(), 1);
  }
}

}  // namespace
}  // namespace lwq::testing
