#include "server/store/store_copy.h"

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/store/memory_store.h"
#include "tests/testing/failing_store.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

Write RowOf(Table table, int i) {
  Write write{.table = table};
  write.record.key = absl::StrCat("k", i);
  write.record.value = absl::StrCat("value ", i);
  write.record.state = i % 7;
  write.record.tag = absl::StrCat("tag", i % 3);
  write.record.order = i - 100;  // some before 1970
  return write;
}

class StoreCopyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 450; ++i) ASSERT_OK(from_.Commit({RowOf(Table::kEvents, i)}));
    ASSERT_OK(from_.Commit({RowOf(Table::kJobs, 1), RowOf(Table::kLeader, 1)}));
    ASSERT_OK(from_.Commit({RowOf(Table::kJobs, 1)}));  // at version 2
  }
  MemoryStore from_, to_;
};

TEST_F(StoreCopyTest, EveryRecordButTheLeadersIsThereAfterwards) {
  LWQ_ASSERT_OK_AND_ASSIGN(const StoreCopyReport report, CopyStore(from_, to_));
  EXPECT_EQ(report.num_records, 451);
  LWQ_ASSERT_OK_AND_ASSIGN(const Record row, to_.Get(Table::kEvents, "k433"));
  EXPECT_EQ(row.value, "value 433");
  EXPECT_EQ(row.state, 433 % 7);
  EXPECT_EQ(row.tag, "tag1");
  EXPECT_EQ(row.order, 333);
  EXPECT_EQ(to_.Get(Table::kJobs, "k1")->version, 1);
  EXPECT_THAT(to_.Get(Table::kLeader, "k1"), FailsWith("NOT_FOUND", _));
}

TEST_F(StoreCopyTest, OnlyAnEmptyStoreIsCopiedInto) {
  ASSERT_OK(to_.Commit({RowOf(Table::kLeader, 1)}));
  ASSERT_OK(CopyStore(from_, to_));
  EXPECT_THAT(CopyStore(from_, to_), FailsWith("STORE_NOT_EMPTY", _));
}

TEST_F(StoreCopyTest, ACopyThatFailsSaysSo) {
  int faults = 0;
  for (int n = 1; n < 50; ++n) {
    MemoryStore to;
    FaultPlan plan(FailNth(n, Fault::kBefore));
    FailingStore failing(&to, &plan);
    const bool copied = CopyStore(from_, failing).ok();
    EXPECT_EQ(copied, plan.num_faults() == 0) << n;
    faults += plan.num_faults();
  }
  EXPECT_GT(faults, 20);
}

// Loses one record of each commit.
class LossyStore : public MemoryStore {
 public:
  absl::Status Commit(const std::vector<Write>& writes) override {
    return MemoryStore::Commit({writes.begin() + 1, writes.end()});
  }
};

TEST_F(StoreCopyTest, ACopyThatIsNotTheSameIsFound) {
  LossyStore lossy;
  EXPECT_THAT(CopyStore(from_, lossy), FailsWith("COPY_DIFFERS", _));
}

}  // namespace
}  // namespace lwq::testing
