// What happens while a collection goes on: blobs are used and named, tasks run, another server
// leads, this one is stopped.
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "server/blob/memory_blob_store.h"
#include "server/service/collector.h"
#include "server/store/leadership.h"
#include "server/store/memory_store.h"
#include "tests/testing/failing_blob_store.h"
#include "tests/testing/simulated_clock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

// `inner`, with something that happens once a page is read, and before a deletion.
class HookedBlobs : public FailingBlobStore {
 public:
  HookedBlobs(BlobStore* inner, FaultPlan* no_faults) : FailingBlobStore(inner, no_faults) {}
  absl::StatusOr<std::vector<BlobStat>> List(const std::string& after, int limit) const override {
    auto page = FailingBlobStore::List(after, limit);
    on_list();
    return page;
  }
  absl::Status Delete(const BlobId& id) override {
    on_delete();
    return FailingBlobStore::Delete(id);
  }

  std::function<void()> on_list = [] {};
  std::function<void()> on_delete = [] {};
};

class CollectorFaultsTest : public ::testing::Test {
 protected:
  CollectorFaultsTest() { spdlog::set_level(spdlog::level::err); }

  static v1::BlobRef RefOf(const BlobId& id) {
    v1::BlobRef blob;
    blob.set_sha256(id.sha256);
    blob.set_size_bytes(id.size_bytes);
    return blob;
  }
  BlobId PutBlob(const std::string& content) {
    const absl::StatusOr<BlobId> id = blobs_.Put(content);
    EXPECT_OK(id);
    return id.value_or(BlobId());
  }
  // Past the wrapper, which would count it as a use.
  bool IsThere(const BlobId& id) { return *memory_.Has(id); }
  void PutTask(v1::TaskRecord::State state, absl::Time leased) {
    v1::TaskRecord task;
    task.set_state(state);
    task.set_leased_us(absl::ToUnixMicros(leased));
    Put(Table::kTasks, "task", task);
  }
  void PutDatasetOf(const BlobId& id) {
    v1::Dataset dataset;
    *dataset.mutable_blob() = RefOf(id);
    Put(Table::kDatasets, absl::StrCat("datasets/", id.sha256), dataset);
  }
  void Put(Table table, const std::string& key, const google::protobuf::Message& record) {
    Write write{.table = table};
    write.record = {.key = key, .value = record.SerializeAsString()};
    ASSERT_OK(store_.Commit({write}));
  }

  SimulatedClock clock_;
  MemoryStore store_;
  MemoryBlobStore memory_{int64_t{1} << 30, &clock_};
  FaultPlan no_faults_{[](int) { return Fault::kNone; }};
  HookedBlobs* const hooked_ = new HookedBlobs(&memory_, &no_faults_);
  CollectableBlobStore blobs_{std::unique_ptr<BlobStore>(hooked_), absl::Hours(1), &clock_};
  ServerMetrics metrics_;
  Executor cpu_{"cpu", 1, 10};
  Scheduler scheduler_{&store_, &blobs_, &clock_, &metrics_, &cpu_, DispatchOptions()};
  Collector collector_{&scheduler_, &blobs_, Retention()};
};

// It was needed by nobody, and then computed again: all that a worker hears is that it is there.
TEST_F(CollectorFaultsTest, ABlobThatARecordNamesAfterTheMarkStaysHoweverLongTheSweepTakes) {
  const BlobId old = PutBlob("old"), nobodys = PutBlob("nobody's");
  clock_.Advance(absl::Hours(2));
  EXPECT_TRUE(*blobs_.Has(old));
  clock_.Advance(absl::Minutes(50));
  hooked_->on_list = [&] {
    clock_.Advance(absl::Minutes(5));
    PutDatasetOf(old);  // within its grace
    clock_.Advance(absl::Minutes(6));
    PutBlob("another");  // a use that ends
  };
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::CollectGarbageResponse result, collector_.Collect(false));
  EXPECT_TRUE(IsThere(old));
  EXPECT_FALSE(IsThere(nobodys));
  EXPECT_EQ(result.grace_blobs(), 1);
}

// Calibration and assembly store blobs as they go, and name them when they are done.
TEST_F(CollectorFaultsTest, WhatATaskThatStillRunsStoredStaysHoweverLongItRuns) {
  const BlobId told = PutBlob("told"), before = PutBlob("before");
  clock_.Advance(absl::Hours(2));
  PutTask(v1::TaskRecord::LEASED, clock_.Now());
  const BlobId stored = PutBlob("stored");
  EXPECT_TRUE(*blobs_.Has(told));
  for (int round = 0; round < 2; ++round) {
    clock_.Advance(absl::Hours(2));
    ASSERT_OK(collector_.Collect(false));
    EXPECT_TRUE(IsThere(stored));
    EXPECT_TRUE(IsThere(told));
    EXPECT_FALSE(IsThere(before));
  }
  PutTask(v1::TaskRecord::DONE, clock_.Now());
  ASSERT_OK(collector_.Collect(false));
  EXPECT_FALSE(IsThere(stored)) << "it ended, and its record does not name it";
  EXPECT_FALSE(IsThere(told));
}

// The first to lead.
class CollectingLeaderTest : public CollectorFaultsTest {
 protected:
  void TakeTermForAnother() {
    Write term{.table = Table::kLeader, .expected_version = leadership_->term()};
    term.record.key = "term";
    term.record.value = "b";
    ASSERT_OK(store_.Commit({term}));
  }

  std::unique_ptr<Leadership> leadership_ =
      *Leadership::Win(&store_, &clock_, {.holder = "a"}, [] { return false; });
  FencedStore fenced_{&store_, leadership_.get()};
  Scheduler led_{&fenced_, &blobs_, &clock_, &metrics_, &cpu_, DispatchOptions()};
  Collector leaders_collector_{&led_, &blobs_, Retention()};
};

// One that hung: what the next leader was told is there may not go by the mark of the old one.
TEST_F(CollectingLeaderTest, OneThatWasReplacedDeletesNothing) {
  const BlobId old = PutBlob("old");
  clock_.Advance(absl::Hours(2));
  hooked_->on_list = [&] {
    TakeTermForAnother();
    CollectableBlobStore of_the_next(std::make_unique<FailingBlobStore>(&memory_, &no_faults_),
                                     absl::Hours(1), &clock_);
    EXPECT_TRUE(*of_the_next.Has(old));
    PutDatasetOf(old);
  };
  EXPECT_THAT(leaders_collector_.Collect(false).status(), FailsWith("NOT_LEADER", _));
  EXPECT_TRUE(IsThere(old));
}

TEST_F(CollectingLeaderTest, OneThatIsReplacedBetweenTwoDeletionsStopsWithinASecond) {
  for (int i = 0; i < 10; ++i) PutBlob(absl::StrCat("blob ", i));
  clock_.Advance(absl::Hours(2));
  int num_deleted = 0;
  hooked_->on_delete = [&] {
    if (++num_deleted == 3) TakeTermForAnother();
    clock_.Advance(absl::Milliseconds(500));
  };
  EXPECT_THAT(leaders_collector_.Collect(false).status(), FailsWith("NOT_LEADER", _));
  EXPECT_GE(memory_.total_count(), 10 - 3 - 2);
}

TEST_F(CollectorFaultsTest, AServerThatDrainsStopsBeforeTheNextDeletion) {
  for (int i = 0; i < 10; ++i) PutBlob(absl::StrCat("blob ", i));
  clock_.Advance(absl::Hours(2));
  int num_deleted = 0;
  hooked_->on_delete = [&] { scheduler_.draining = ++num_deleted == 3; };
  EXPECT_THAT(collector_.Collect(false).status(), FailsWith("DRAINING", _));
  EXPECT_EQ(memory_.total_count(), 7);

  int num_pages = 0;
  hooked_->on_list = [&] { ++num_pages; };
  EXPECT_THAT(collector_.Collect(true).status(), FailsWith("DRAINING", _));
  EXPECT_EQ(num_pages, 0) << "the next does not begin";
}

TEST_F(CollectorFaultsTest, ASecondCollectionIsRefusedAndDoesNotWait) {
  const BlobId old = PutBlob("old");
  clock_.Advance(absl::Hours(2));
  std::future<absl::Status> second;
  hooked_->on_list = [&] {
    if (second.valid()) return;
    second = std::async(std::launch::async, [&] { return collector_.Collect(true).status(); });
    EXPECT_EQ(second.wait_for(std::chrono::seconds(60)), std::future_status::ready);
  };
  EXPECT_OK(collector_.Collect(false));
  EXPECT_THAT(second.get(), FailsWith("COLLECTION_RUNNING", _));
  EXPECT_FALSE(IsThere(old));
  EXPECT_OK(collector_.Collect(true)) << "the first has ended";
}

}  // namespace
}  // namespace lwq::testing
